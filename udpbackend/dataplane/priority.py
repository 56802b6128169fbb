"""How the scheduler treats a thread that moves packets: its nice value.

Owns the one call that sets it and the sentence for the case that the kernel refuses. It must not know queues. On Linux
a nice value belongs to a thread, so the control plane, which is all of Python, keeps that of the process.
"""

from __future__ import annotations

import os
import threading
from typing import NamedTuple


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
