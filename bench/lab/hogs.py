"""Programs that loop without end: what a busy host has beside an overlay.

Owns them for as long as the context lasts. Each stays on a core of its own, in turn: left to the scheduler, two may
share one for a second, and the host is half idle. Each runs in a session of its own, as independent programs do: where
the kernel groups processes by session, all of them together would otherwise weigh no more than one.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.lab.process import Process, Processes
from bench.lab.wait import until

LIMIT_S = 3600
"""Of processor time, for one that nobody stops."""
RUNS_S = 20.0
"""How long one may take to get a processor for the first time."""


def _turns(process: Process) -> bool:
    """Whether it has had a processor for a clock tick."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) > 0


@contextmanager
def hogs(count: int) -> Iterator[list[int]]:
    """So many of them at an ordinary priority, all of them turning when the context is entered; their pids."""
    with tempfile.TemporaryDirectory(prefix="udpb-hogs-") as directory, Processes(Path(directory)) as started:
        shell = f"ulimit -t {LIMIT_S}; while :; do :; done"
        places = sorted(os.sched_getaffinity(0))
        pids = []
        for number in range(count):
            core = str(places[number % len(places)])
            hog = started.start(["taskset", "--cpu-list", core, "sh", "-c", shell], f"hog-{number}")
            until(partial(_turns, hog), RUNS_S, f"{hog.name} gets no processor")
            pids.append(hog.pid)
        yield pids


def cores() -> int:
    """Processors there are for them."""
    return len(os.sched_getaffinity(0))
