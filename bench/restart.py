"""`python -m bench restart`: what a daemon's end and its successor's start cost the packets and connections of others.

Owns the events (an upgrade, a kill, a stop and a start), what is asked of each system meanwhile, and the document.
There are a stream of 50,000 datagrams a second, one that leaves two cores some time, and 1,000 TCP connections. Packets
go from pod to pod. Must not know how a system does it: it calls three things, `upgrade`, `kill` and `restart`.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import congestion, links, result, surroundings
from bench.lab import rootless
from bench.lab.cleanup import sigterm_unwinds
from bench.lab.table import render
from bench.lab.topology import Lab
from bench.lab.wait import LabError
from bench.programs import path as compiled
from bench.progress import Progress
from bench.restart_page import HEADER, HEADER_TCP, came, rows
from bench.restart_probes import Connections, stream
from bench.restart_systems import SYSTEMS, Restarted

EVENTS = 20
RATES = (50_000, 20_000)
CONNECTIONS = 1000
NEW_PER_S = 200.0
LINK = "pass-through"
SEED = 14
APART_S = (0.3, 0.8)
"""Between the beginning of what is watched and the event: not always the same moment of a daemon's second."""
AFTER_S = 0.5
UPGRADE_S, KILL_S = 6.0, 6.0
"""What each event is planned to take."""
RESULT = surroundings.ROOT / "bench" / "results" / "restart.json"
GAP_MAX_S, STALL_MAX_S = 0.020, 0.500
"""What is promised of an upgrade, and of a kill whose fds are kept."""
CAME_MIN = 0.95
"""The share of a stream that has to come across upgrades, or its row is not of the rate that it names."""

Document = dict[str, Any]


def _streamed(system: Restarted, event: str, times: int, rate: int, progress: Progress) -> list[dict[str, Any]]:
    """A stream that is watched across each event by itself."""
    act: Callable[[], None] = getattr(system, event)
    chance = random.Random(SEED)  # noqa: S311  no secret
    seen = []
    for number in range(times):
        progress.step(f"{system.name}: {event} {number + 1} of {times} under a stream", UPGRADE_S)
        with stream(system.way, rate) as watched:
            time.sleep(chance.uniform(*APART_S))
            act()
            time.sleep(AFTER_S)
        seen.append(vars(watched.seen()))
    return seen


def _connected(system: Restarted, event: str, times: int, count: int, progress: Progress) -> list[dict[str, Any]]:
    """Many connections, and new ones all the time, across all events."""
    act: Callable[[], None] = getattr(system, event)
    chance = random.Random(SEED)  # noqa: S311  no secret
    seen = []
    with Connections(system.way, count, NEW_PER_S) as held:
        held.ask()
        for number in range(times):
            progress.step(f"{system.name}: {event} {number + 1} of {times} under {count} connections", KILL_S)
            time.sleep(chance.uniform(*APART_S))
            act()
            time.sleep(2 * AFTER_S)
            seen.append(held.ask())
    return seen


def measure(options: argparse.Namespace, progress: Progress) -> Document:
    """The whole of it: the document that is written."""
    document: Document = {
        "kind": "restart",
        "rates": options.rates,
        "connections": options.connections,
        "new_per_s": NEW_PER_S,
        "link": LINK,
        "series": [],
        "skipped": {},
        "surroundings": surroundings.machine(),
        "commit": surroundings.commit(),
    }
    compiled("gap")
    for name in options.systems:
        kind = SYSTEMS[name]
        if missing := kind.missing():
            document["skipped"][name] = f"needs {missing}"
            progress.say(f"SKIPPED {name}: needs {missing}")
            continue
        for under, event, rate in _watched(kind, options.rates):
            with ExitStack() as stack:
                cubic = stack.enter_context(congestion.permitted("cubic"))
                lab = stack.enter_context(Lab(congestion=cubic))
                for host in lab.hosts:
                    links.switch(host.namespace, "eth0", links.PROFILES[LINK])
                system = stack.enter_context(kind(lab))
                times = options.events if event in ("nothing", "upgrade", "kill") else max(1, options.events // 4)
                if under == "stream":
                    seen = _streamed(system, event, times, rate, progress)
                else:
                    seen = _connected(system, event, times, options.connections, progress)
            document["series"].append({"system": name, "event": event, "under": under, "rate": rate, "seen": seen})
    return document


def _watched(kind: type[Restarted], rates: Sequence[int]) -> Iterator[tuple[str, str, int]]:
    """What is watched, what happens, and the stream's rate or 0. Only what is to cost nothing is seen at all rates."""
    for under, event in kind.events:
        of_it = rates if event in ("nothing", "upgrade") else rates[:1]
        for rate in of_it if under == "stream" else [0]:
            yield under, event, rate


def broken(document: Document) -> list[str]:
    """Where it is not as it is promised; a sentence for each."""
    found = []
    for series in document["series"]:
        seen, where = series["seen"], f"{series['system']}, {series['event']} under {series['under']}"
        where += f" of {series['rate']:,} a second" if series["rate"] else ""
        if (series["system"], series["event"], series["under"]) == ("udp", "upgrade", "stream"):
            if lost := sum(it["lost"] for it in seen):
                found.append(f"{where}: {lost} lost")
            if (per_s := came(seen)) < CAME_MIN * series["rate"]:
                found.append(f"{where}: {per_s:,.0f} came")
            if (gap := max(it["pause_s"] for it in seen)) > GAP_MAX_S:
                found.append(f"{where}: a gap of {1000 * gap:.1f} ms")
        if (series["system"], series["event"], series["under"]) == ("udp, fds kept", "kill", "connections"):
            if lost := sum(it["lost"] + it["failed"] for it in seen):
                found.append(f"{where}: {lost} connections lost or failed")
            if (stall := max(it["stall_s"] for it in seen)) > STALL_MAX_S:
                found.append(f"{where}: a stall of {1000 * stall:.0f} ms")
    return found


def main(argv: Sequence[str]) -> int:
    """The sub-command; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m bench restart", description="What restarts cost.")
    parser.add_argument("--events", type=int, default=EVENTS, help=f"of each kind, default {EVENTS}")
    parser.add_argument("--rates", type=int, nargs="+", default=RATES, metavar="RATE",
                        help="datagrams a second, by spaces; default " + " ".join(map(str, RATES)))  # fmt: skip
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help=f"held, default {CONNECTIONS}")
    parser.add_argument("--systems", type=lambda text: text.split(";"), default=list(SYSTEMS), metavar="NAMES",
                        help="by semicolons: " + "; ".join(SYSTEMS))  # fmt: skip
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the figures go")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.systems if name not in SYSTEMS]:
        raise LabError(f"--systems: unknown {unknown[0]!r}, expected some of {'; '.join(SYSTEMS)}")
    rootless.become_able("run it as root")
    planned = sum(UPGRADE_S * options.events for name in options.systems for _ in SYSTEMS[name].events)
    progress = Progress(planned)
    with sigterm_unwinds():
        document = measure(options, progress)
    progress.end()
    result.save(document, options.json)
    for header, under in ((HEADER, "stream"), (HEADER_TCP, "connections")):
        print(render(header, rows(document, under)), end="\n\n")
    complaints = broken(document)
    for complaint in complaints:
        print(f"NOT AS PROMISED: {complaint}")
    return 1 if complaints else 0
