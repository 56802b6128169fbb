"""How the scheduler treats a thread that moves packets: its nice value.

Owns the calls that set it and the sentence for the case that the kernel refuses. It must not know queues. On Linux a
nice value belongs to a thread, so the control plane, which is all of Python, keeps that of the process.

With CONFIG_SCHED_AUTOGROUP (sched(7)) a process outside of all cpu cgroups competes as part of its session, and nice
values count within that session alone. Then the session has a nice value of its own. It counts for the control plane,
too, so ours is raised a little only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SESSION_NICE = -5
"""Three times the weight of another session: what a moment of long Python takes from others stays small."""
SESSION_PAUSE_S = 0.1
SESSION = Path("/proc/self/autogroup")


class Priority(NamedTuple):
    """What a thread runs at."""

    nice: int
    """Its nice value as the kernel has it."""
    refused: str = ""
    """Why it is not the one that was asked for; empty when it is."""


def raise_own(nice: int) -> Priority:
    """Gives the calling thread a nice value lower than its own; 0 or a higher one leaves it alone. Never fails."""
    thread = threading.get_native_id()
    now = os.getpriority(os.PRIO_PROCESS, thread)
    if nice >= min(now, 0):
        return Priority(now)
    try:
        os.setpriority(os.PRIO_PROCESS, thread, nice)
    except OSError as error:
        why = error.strerror or str(error)
        return Priority(now, f"nice {nice} was refused ({why}): the capability SYS_NICE is needed, or a limit on nice")
    return Priority(os.getpriority(os.PRIO_PROCESS, thread))


@contextmanager
def hurried(nice: int) -> Iterator[None]:
    """The calling thread runs at that nice value meanwhile, if the kernel grants it: packets wait for what it does."""
    thread = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, thread)
    raise_own(nice)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, thread, before)


def granted(nice: int) -> Priority:
    """What `raise_own` would come to, tried in a thread that ends with it.

    Capabilities alone do not tell: in a user namespace one has them all, and the kernel refuses nevertheless.
    """
    found: list[Priority] = []
    trial = threading.Thread(target=lambda: found.append(raise_own(nice)), name="udpb-trial")
    trial.start()
    trial.join()
    return found[0]


def raise_session(nice: int = SESSION_NICE) -> int | None:
    """Raises the session if it is ours alone: its nice value then; None where it is not, or the kernel has none.

    A daemon that was started from a shell shares the session of that shell, which is not ours to raise. Raises
    BlockingIOError where the kernel wants to be asked again: without CAP_SYS_ADMIN it lets one such change pass in
    SESSION_PAUSE_S, on the whole host.
    """
    if os.getsid(0) != os.getpid():
        return None
    try:
        if _session_nice() > nice:
            SESSION.write_text(str(nice), encoding="ascii")
        return _session_nice()
    except BlockingIOError:
        raise
    except (OSError, ValueError, IndexError):  # no such file, no right to it, or other words than today's
        return None


def _session_nice() -> int:
    """Of `/autogroup-4 nice 0`."""
    return int(SESSION.read_text(encoding="ascii").split()[2])
