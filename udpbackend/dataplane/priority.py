"""How the scheduler treats a thread that moves packets: its nice value.

Owns the calls that set it and the sentence for the case that the kernel refuses. It must not know queues. On Linux a
nice value belongs to a thread, so the control plane, which is all of Python, keeps that of the process.

With CONFIG_SCHED_AUTOGROUP (sched(7)) a process outside of all cpu cgroups competes as part of its session, and nice
values count within that session alone. Then the session has a nice value of its own. It counts for the control plane,
too, so ours is raised a little only, and only while other programs keep the core (native/yield.h). Beside the programs
that send and receive it does harm: whose packet wakes the daemon has to wait for it then.
"""

from __future__ import annotations

import math
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SESSION_NICE = -5
"""Three times the weight of another session: what a moment of long Python takes from others stays small."""
SESSION = Path("/proc/self/autogroup")
LOOK_S, CALM_S = 1.0, 20.0
"""How often it is looked whether the core is crowded, and how long it has not been when the session goes back."""


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


def granted(nice: int) -> Priority:
    """What `raise_own` would come to, tried in a thread that ends with it.

    Capabilities alone do not tell: in a user namespace one has them all, and the kernel refuses nevertheless.
    """
    found: list[Priority] = []
    trial = threading.Thread(target=lambda: found.append(raise_own(nice)), name="udpb-trial")
    trial.start()
    trial.join()
    return found[0]


class Session:
    """The session, if it is ours alone: a daemon that was started from a shell shares that of the shell."""

    def __init__(self, nice: int = SESSION_NICE) -> None:
        self._raised = nice
        self._crowded_at = -math.inf
        self._before: int | None = None
        with suppress(OSError, ValueError, IndexError):  # no such file, or other words than today's
            if os.getsid(0) == os.getpid():
                self._before = _session_nice()

    @property
    def counts(self) -> bool:
        """Whether there is anything to raise."""
        return self._before is not None and self._before > self._raised

    @property
    def nice(self) -> int | None:
        """What it is now; None where there is none, or it is somebody else's."""
        with suppress(OSError, ValueError, IndexError):
            return None if self._before is None else _session_nice()
        return None

    def follow(self, *, crowded: bool, now: float) -> None:
        """Raises it while other programs keep the core, and for CALM_S longer. `now` is a monotonic time."""
        if not self.counts:
            return
        if crowded:
            self._crowded_at = now
        wanted = self._raised if now - self._crowded_at < CALM_S else self._before
        # No right to it; or the kernel wants to be asked again: without CAP_SYS_ADMIN one such change passes in 0.1 s,
        # on the whole host.
        with suppress(OSError):
            if wanted != self.nice:
                SESSION.write_text(str(wanted), encoding="ascii")


def _session_nice() -> int:
    """Of `/autogroup-4 nice 0`."""
    return int(SESSION.read_text(encoding="ascii").split()[2])
