"""A daemon that has nothing to do sleeps: what wakes it is counted, thread by thread."""

import time
from pathlib import Path

import pytest

from bench.lab.daemon import Overlay
from bench.lab.topology import Lab
from bench.lab.wait import until

WATCHED_S = 6.0
"""Longer than the wait between two looks at the rules."""
PER_S_MAX = 8.0
"""A look at the file four times a second alone was twice as many: each wakes two threads, some more than once."""
DEADLINE_S = 90.0

pytestmark = pytest.mark.usefixtures("able")


def wakes(pid):
    """How often a thread of the process has gone to sleep of its own accord."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        found += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("voluntary_ctxt"))
    return found


def test_nothing_wakes_an_idle_daemon_but_its_own_few_looks():
    with Lab(2) as lab, Overlay(lab) as overlay:
        overlay.start_all()
        pid = overlay.process(lab.hosts[0]).pid

        def quiet():  # what the start has set off may go on for some seconds
            before, began = wakes(pid), time.monotonic()
            time.sleep(WATCHED_S)  # the length of the measurement
            return (wakes(pid) - before) / (time.monotonic() - began) < PER_S_MAX

        until(quiet, DEADLINE_S, f"still woken more than {PER_S_MAX:g} times a second")
        overlay.stop_all()
