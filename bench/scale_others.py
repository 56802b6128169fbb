"""What other programs of this machine take of its processors, for figures that they would spoil.

Owns the telling apart: ours is this process with all that it has started, kernel threads are nobody's.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bench.meter import parse_process_busy_s

KERNEL = 2
"""kthreadd, the parent of all kernel threads."""


def others(parents: dict[int, int], ours: int) -> set[int]:
    """Of all processes, given with the parent of each, those that are neither the kernel's nor descend from `ours`."""
    found = {pid for pid, parent in parents.items() if KERNEL not in (pid, parent)}
    return {pid for pid in found if ours not in _line(pid, parents)}


def others_busy_s() -> float:
    """Processor time that they have used so far.

    Of two readings the difference counts: a process that has ended meanwhile is in its parent's time.
    """
    texts = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                texts[int(entry.name)] = (entry / "stat").read_text()
    parents = {pid: int(text.rpartition(")")[2].split()[1]) for pid, text in texts.items()}
    return sum(parse_process_busy_s(texts[pid]) for pid in others(parents, os.getpid()))


def _line(pid: int, parents: dict[int, int]) -> Iterable[int]:
    """The process, its parent, and so on."""
    while pid:
        yield pid
        pid = parents.get(pid, 0)
