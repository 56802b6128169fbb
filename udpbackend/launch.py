"""How a daemon comes to be: in the foreground, or in the background in place of the one that runs (`reload`).

Owns the order in which a start loads things, and the process that waits for a successor. Must not know flags, nor what
a daemon does.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from udpbackend.dataplane import handover, rights
from udpbackend.dataplane.inherit import begin
from udpbackend.errors import HostError
from udpbackend.notify import barrier, notify
from udpbackend.settings import Settings

READY = b"ready"


def run(settings: Settings, ready: Callable[[], None] | None = None) -> int:
    """Runs the daemon to its end.

    What a dead process has left moves packets before anything else is loaded; while one that lives moves them, all is
    loaded first.
    """
    if settings.dataplane in ("kernel", "auto"):
        from udpbackend.host.fou_probe import foresee  # noqa: PLC0415 half a second, and only for this

        foresee()  # by rights that are given up now
    refused = rights.limit(settings)
    inherited = begin(settings, os.environ, partial(_load, settings))
    inherited.notes += [refused] if refused else []
    try:
        from udpbackend.daemon import run as run_daemon  # noqa: PLC0415 half a second that no packet shall wait for

        return run_daemon(settings, inherited, ready)
    finally:
        inherited.close()


def reload(settings: Settings) -> int:
    """Starts a daemon in the background that takes over from the one that runs; 0 once the old one may end.

    The new one is the service manager's main process from then on. With anything that goes wrong before, the old one
    goes on and this says so.
    """
    if not handover.answers(settings.status_socket):
        raise HostError(f"not running: nobody listens on {settings.status_socket}")
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        os.setsid()
        _let_go_of_input_and_output()

        def ready() -> None:
            told = b""
            with theirs, suppress(OSError):
                theirs.send(READY)
                told = theirs.recv(1)  # the manager knows us now; the old one may end
            if not told:  # a manager ends a reload that takes too long, and would end us with the old one
                raise HostError("the command `reload` has ended before this daemon was ready: the old one goes on")

        return run(settings, ready)
    theirs.close()
    with ours:
        if ours.recv(len(READY)):
            notify(f"MAINPID={pid}")  # from here: the manager does not listen to the new one yet
            barrier()
            ours.send(READY)
            return 0
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status > 0 else 1  # it has written why


def _let_go_of_input_and_output() -> None:
    """Or who reads what `reload` writes would wait for the daemon's end. The log goes on where it went."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)


def _load(settings: Settings) -> None:
    from udpbackend.daemon import load  # noqa: PLC0415 as above; it is called only where none waits

    load(settings)
