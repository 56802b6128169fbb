"""The program's front door: what the operator asks for, and the status the program ends with.

Owns the choice between the daemon and a sub-command, and is the one place where our errors become a line on stderr. It
loads neither before it is asked for, so that `status` does not wait for the daemon's imports.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import udpbackend
from udpbackend import flags
from udpbackend.errors import UdpBackendError, UsageError

COMMANDS = {
    "reload": "start a new daemon in place of the running one, without losing a packet",
    "status": "ask the running daemon how it fares",
    "cleanup": "remove what a daemon has left on this host",
    "ping": "ask other nodes through the overlay and beside it",
    "trace": "say what happens to a packet to an address, and send one",
    "doctor": "say what is wrong on this host, and what cures it",
    "report": "put into one file what a report of a fault needs",
    "install-cni": "put the CNI plugin and its configuration in place",
}
"""Each is a module of udpbackend.commands, `_` for `-` in its name, with `run(argv) -> exit status`, but for RELOAD."""

RELOAD = "reload"
"""Takes the daemon's own flags."""

INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""

PIPE_CLOSED = 141
"""128 + SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program and gives its exit status."""
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except UdpBackendError as error:
        sys.stderr.write(f"udp-backend: {' '.join(str(error).split())}\n")
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return PIPE_CLOSED
    return status


def _run(argv: list[str]) -> int:
    if argv and argv[0] != RELOAD and not argv[0].startswith("-"):
        name = argv[0]
        if name not in COMMANDS:
            raise UsageError(f"unknown command {name!r}{_nearest(name)}")
        return int(import_module(f"udpbackend.commands.{name.replace('-', '_')}").run(argv[1:]))
    again = argv[:1] == [RELOAD]
    match flags.parse(argv[again:], os.environ):
        case flags.Ask.HELP:
            sys.stdout.write(flags.usage(COMMANDS))
        case flags.Ask.VERSION:
            sys.stderr.write(f"{udpbackend.__version__}\n")  # where flannel prints it
        case settings:
            launch = import_module("udpbackend.launch")
            return int(launch.reload(settings) if again else launch.run(settings))
    return 0


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.75)  # `uninstall` is not meant to install
    return f", did you mean {near[0]}?" if near else f": expected {' or '.join(COMMANDS)}, or flags of the daemon"


def _forget_stdout() -> None:
    """Points stdout elsewhere, or the interpreter's last flush complains of the closed pipe again."""
    with open(os.devnull, "w", encoding="utf-8") as null:  # noqa: PTH123 devnull is no path of ours
        os.dup2(null.fileno(), sys.stdout.fileno())
