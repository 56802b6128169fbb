"""`python -m bench soak`: an hour of traffic, edits and questions, and whether a daemon grows by it.

Owns the load (a paced TCP stream, small datagrams, an edit of the registry and a scrape every few seconds), the samples
of what a process holds, and the slope through them. Must not know other benches: it has no pairs and compares nothing.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression
from typing import Any

from bench import congestion, meter, result, surroundings
from bench.lab import rootless
from bench.lab.cleanup import sigterm_unwinds
from bench.lab.table import render
from bench.lab.topology import Lab
from bench.lab.wait import LabError
from bench.progress import Progress
from bench.systems.scaled import Scaled
from bench.workloads.loaded import background

EVERY_S = 5.0
FIRST_PORT = 5210
WARM_UP = 0.2
"""This share of the samples comes before anything is compared."""
LOADS = (("--bitrate", "500M"), ("--udp", "--length", "64", "--bitrate", "5M"))
SLOPE_MAX = 1 << 20
"""Bytes an hour that count as flat."""
HEADER = ["daemon", "memory at first", "warm", "at the end", "slope an hour", "fds", "threads"]
RESULT = surroundings.ROOT / "bench" / "results" / "soak.json"


@dataclass(frozen=True)
class Sample:
    """What one daemon holds."""

    at_s: float
    rss_bytes: int
    fds: int
    threads: int


class Soaked(Scaled):
    """Enough nodes for an edit to be work, few enough for a minute to hold many."""

    name = "soaked"
    what = "udp-backend with 1,000 subnets to route to"
    subnets = 1000


def sample(pid: int, at_s: float) -> Sample:
    """Reads /proc/PID."""
    proc = Path(f"/proc/{pid}")
    return Sample(
        at_s, meter.resident_bytes(pid), *(sum(1 for _ in (proc / name).iterdir()) for name in ("fd", "task"))
    )


def slope(samples: Sequence[Sample]) -> float:
    """Bytes an hour, by least squares, once warmed up."""
    warm = samples[int(len(samples) * WARM_UP) :]
    return linear_regression([it.at_s for it in warm], [it.rss_bytes for it in warm]).slope * 3600


def _watch(system: Soaked, seconds: float, progress: Progress) -> Iterator[list[Sample]]:
    """A sample of both daemons after each edit, its publication and a scrape, until the time is over."""
    began = time.monotonic()
    for turn in itertools.count(1):
        at_s = turn * EVERY_S
        if at_s > seconds:
            return
        progress.step("under load", EVERY_S)
        time.sleep(max(0.0, began + at_s - time.monotonic()))
        system.change()
        for host in system.lab.hosts:
            system.published(host)  # the scrape, and a proof of life
        yield [sample(pid, at_s) for pid in system.pids()]


def measure(seconds: float, progress: Progress) -> dict[str, Any]:
    """The whole of it: the document that is written."""
    with ExitStack() as stack:
        cubic = stack.enter_context(congestion.permitted("cubic"))
        lab = stack.enter_context(Lab(congestion=cubic))
        system = Soaked(lab)
        stack.enter_context(system.overlay)
        system.prepare()
        for port, options in enumerate(LOADS, FIRST_PORT):
            stack.enter_context(background(system.way("host-host"), seconds + EVERY_S, *options, port=port))
        samples = list(zip(*_watch(system, seconds, progress), strict=True))
        carried = [system.overlay.carried(host) for host in lab.hosts]
        edits = [system.publications_logged(host) for host in lab.hosts]
        system.teardown()
    if min(it.tx_packets + it.rx_packets for it in carried) < seconds:
        raise LabError("no load passed")
    return {
        "kind": "soak",
        "seconds": seconds,
        "samples": [[asdict(it) for it in one] for one in samples],
        "slopes": [slope(one) for one in samples],
        "publications": edits,
        "carried": [asdict(it) for it in carried],
        "surroundings": surroundings.machine(),
    }


def rows(document: dict[str, Any]) -> list[list[str]]:
    """A row for each daemon: at the start, warmed up, at the end; the slope; fds and threads."""
    found = []
    for name, samples, per_hour in zip("ab", document["samples"], document["slopes"], strict=True):
        warm = samples[int(len(samples) * WARM_UP)]
        ends = (samples[0], warm, samples[-1])
        memory = [f"{it['rss_bytes'] / 1e6:.1f} MB" for it in ends]
        held = [" ".join(str(it[what]) for it in ends) for what in ("fds", "threads")]
        found.append([name, *memory, f"{per_hour / 1024:+.0f} KiB", *held])
    return found


def section(document: dict[str, Any], markdown: Callable[[list[str], list[list[str]]], str]) -> str:
    """The section of the page."""
    edits = min(document["publications"])
    gigabytes = document["carried"][0]["tx_bytes"] / 1e9
    return (
        f"## Under load for {document['seconds'] / 60:.0f} minutes\n\n"
        f"`make bench-soak`: {gigabytes:,.0f} GB by a paced TCP stream and small datagrams, {edits:,} route tables of "
        f"{Soaked.subnets:,} subnets, a scrape with each. The slope is by least squares, after the first fifth.\n\n"
        + markdown(HEADER, rows(document))
    )


def main(argv: Sequence[str]) -> int:
    """The sub-command; 1 where a daemon has grown."""
    parser = argparse.ArgumentParser(prog="python -m bench soak", description="Whether a daemon grows under load.")
    parser.add_argument("--minutes", type=float, default=60, help="how long, default 60")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the figures go")
    options = parser.parse_args(argv)
    rootless.become_able("run it as root")
    progress = Progress(options.minutes * 60)
    with sigterm_unwinds():
        document = measure(options.minutes * 60, progress)
    progress.end()
    result.save(document, options.json)
    print(render(HEADER, rows(document)))
    return 0 if max(document["slopes"]) < SLOPE_MAX else 1
