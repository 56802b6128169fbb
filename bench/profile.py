"""`python -m bench profile`: what the processors do while a stream passes, kind by kind, beside kernel VXLAN.

Owns the runs under perf and their arithmetic: microseconds of processor for so much payload. Must not know how a sample
is sorted (profile_chains), nor compare: a profile disturbs what it looks at, so its rates are no figures of the bench.
"""

import argparse
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import congestion, links, profile_chains, result, surroundings, systems, workloads
from bench.bed import Bed
from bench.lab import rootless
from bench.lab.cleanup import sigterm_unwinds
from bench.lab.table import render
from bench.lab.wait import LabError
from bench.progress import Progress
from bench.systems.udp import Udp
from bench.workloads import Context, Workload

HERTZ = 4000
UNIT_BYTES = 1 << 16
SYSTEMS = (systems.REFERENCE, Udp.name)
WORKLOAD = workloads.BY_NAME["tcp-1"]
APPLICATIONS = ("iperf3",)
RESULT = surroundings.ROOT / "bench" / "results" / "profile.json"
STOP_S = 20.0


@contextmanager
def _recording(file: Path) -> Iterator[None]:
    """All processors are looked at meanwhile. The software clock, because a virtual machine may have no counters."""
    argv = ["perf", "record", "--quiet", "--all-cpus", "-g", "--event=cpu-clock", f"--freq={HERTZ}", f"--output={file}"]
    perf = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield
    finally:
        perf.send_signal(signal.SIGINT)
        said = perf.communicate(timeout=STOP_S)[1].decode().strip()
    if not file.exists():
        raise LabError(f"perf recorded nothing: {said}")


def _samples(file: Path, daemons: set[int]) -> Counter[str]:
    argv = ["perf", "script", "--fields", profile_chains.FIELDS, "--input", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise LabError(f"perf cannot read its own recording: {done.stderr.strip()}")
    return profile_chains.count(done.stdout, daemons, APPLICATIONS)


class Profile:
    """The sum of several runs of one system on one link."""

    def __init__(self) -> None:
        self.samples: Counter[str] = Counter()
        self.bytes = 0.0
        self.rates: list[float] = []

    def add(self, bed: Bed, workload: Workload, seconds: int, directory: Path) -> None:
        """One more run."""
        file = directory / "perf.data"
        with _recording(file):
            outcome = workload.run(bed.system.way("host-host"), Context(seconds, bed.system, {}))
        self.samples += _samples(file, set(bed.system.pids()))
        self.bytes += outcome.bits / 8
        self.rates.append(outcome.values["throughput_bps"])

    def microseconds(self) -> dict[str, float]:
        """Of processor, for UNIT_BYTES of payload."""
        units = self.bytes / UNIT_BYTES
        return {kind: number * 1e6 / HERTZ / units for kind, number in self.samples.items()}


def measure(names: Sequence[str], rounds: int, seconds: int, progress: Progress) -> dict[str, Any]:
    """All of it, in turn: the document that is written."""
    found = {(link, system): Profile() for link in names for system in SYSTEMS}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cubic = stack.enter_context(congestion.permitted("cubic"))
        beds = {name: stack.enter_context(Bed(systems.BY_NAME[name], 1500, cubic)) for name in SYSTEMS}
        for link in names:
            for turn in range(rounds):
                for name, bed in beds.items():
                    progress.step(f"{link}: {name}, {turn + 1} of {rounds}", seconds)
                    bed.set_link(link)
                    found[link, name].add(bed, WORKLOAD, seconds, directory)
    return {
        "kind": "profile",
        "workload": WORKLOAD.name,
        "rounds": rounds,
        "seconds": seconds,
        "profiles": [
            {"link": link, "system": name, "rates_bps": it.rates, "microseconds": it.microseconds()}
            for (link, name), it in found.items()
        ],
        "surroundings": surroundings.machine(),
    }


def header(document: dict[str, Any]) -> list[str]:
    """A column for each link and system."""
    return [f"µs for {UNIT_BYTES // 1024} KB", *(f"{it['link']}: {it['system']}" for it in document["profiles"])]


def rows(document: dict[str, Any]) -> list[list[str]]:
    """A row for each kind of work that anybody does, and the sum of all work."""
    columns = [it["microseconds"] for it in document["profiles"]]

    def row(words: str, values: Sequence[float]) -> list[str]:
        return [words, *(f"{value:.1f}" if value >= 0.05 else "-" for value in values)]

    worked = [sum(us for kind, us in column.items() if kind != profile_chains.IDLE) for column in columns]
    return [
        *(
            row(words, [column.get(kind, 0.0) for column in columns])
            for kind, words in profile_chains.KINDS.items()
            if any(column.get(kind, 0.0) >= 0.05 for column in columns)
        ),
        row("all work", worked),
        row("processors idle", [column.get(profile_chains.IDLE, 0.0) for column in columns]),
    ]


def section(document: dict[str, Any], markdown: Callable[[list[str], list[list[str]]], str]) -> str:
    """The table of the page, with what it is made from."""
    seconds = document["rounds"] * document["seconds"]
    return (
        f"`make bench-profile`: {document['workload']}, host to host, {seconds} s each, in turn, all processors looked "
        f"at {HERTZ:,} times a second. Microseconds of processor, of both hosts together, for {UNIT_BYTES // 1024} KB "
        "of payload that arrived.\n\n" + markdown(header(document), rows(document))
    )


def main(argv: Sequence[str]) -> int:
    """The sub-command."""
    parser = argparse.ArgumentParser(prog="python -m bench profile", description="Where the processor time goes.")
    parser.add_argument("--links", default=",".join(links.PROFILES), help="which, by commas; default all")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, default 3")
    parser.add_argument("--seconds", type=int, default=4, help="each run, default 4")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the figures go")
    options = parser.parse_args(argv)
    names = options.links.split(",")
    if unknown := [name for name in names if name not in links.PROFILES]:
        raise LabError(f"no link is called {unknown[0]!r}: expected some of {', '.join(links.PROFILES)}")
    if not shutil.which("perf"):
        raise LabError("needs perf (Debian: linux-perf)")
    rootless.become_able("run it as root")
    progress = Progress(len(names) * len(SYSTEMS) * options.rounds * options.seconds)
    with sigterm_unwinds():
        document = measure(names, options.rounds, options.seconds, progress)
    progress.end()
    result.save(document, options.json)
    print(render(header(document), rows(document)))
    return 0
