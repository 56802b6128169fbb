"""`python -m bench slow-peer`: what one slow peer costs the others, beside kernel VXLAN.

Owns three hosts, of which the second takes 1 Mbit/s and is sent 20, and the pings to the third without and beside that.
Must not know how a system keeps its peers apart.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench import result, surroundings
from bench.lab import parse, rootless, slow
from bench.lab.cleanup import sigterm_unwinds
from bench.lab.daemon import Overlay
from bench.lab.table import render
from bench.lab.topology import Host, Lab
from bench.progress import Progress

SYSTEMS = ("vxlan", "udp")
"""By the name of our backend."""
ROUNDS = 5
PINGS, EVERY_S = 500, 0.01
FILL_S = 3.0
"""By then all that may wait for the slow peer is full."""
ROUND_S = 2 * PINGS * EVERY_S + FILL_S + 4.0
"""What a round of one system is planned to take."""
HEADER = ["system", "pings", "lost alone", "lost beside", "round trip alone", "beside", "p99 alone", "beside"]
RESULT = surroundings.ROOT / "bench" / "results" / "slow-peer.json"

Document = dict[str, Any]


def _pinged(pod: Host, to: Host) -> dict[str, Any]:
    """How many got no answer, and how long each of the others took."""
    command = ("ping", "-n", f"-i{EVERY_S}", f"-c{PINGS}", to.pod_address)
    said = pod.pod.run(*command, deadline_s=PINGS * EVERY_S + 20, check=False)
    found = parse.ping(said)
    return {"lost": found.sent - found.received, "round_trips_s": parse.ping_each(said)}


def _round(system: str) -> dict[str, Any]:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(3))
        overlay = stack.enter_context(Overlay(lab, backend={"Type": system}))
        overlay.start_all()
        a, b, c = lab.hosts
        alone = _pinged(a, c)
        slow.slow_down(a, b.address)
        with slow.flooded(a, b.pod_address, segmented=True, pause_s=slow.PAUSE_S):
            time.sleep(FILL_S)
            beside = _pinged(a, c)
        overlay.stop_all()
    return {"system": system, "alone": alone, "beside": beside}


def measure(rounds: int, progress: Progress) -> Document:
    """The whole of it, in turn: the document that is written."""
    found = []
    for number in range(rounds):
        for system in SYSTEMS:
            progress.step(f"{system}, {number + 1} of {rounds}", ROUND_S)
            found.append(_round(system))
    return {
        "kind": "slow-peer",
        "rounds": found,
        "surroundings": surroundings.machine(),
        "commit": surroundings.commit(),
    }


def rows(document: Document) -> list[list[str]]:
    """A row for each system: the sum of losses, the medians over the rounds of their medians and 99th percentiles."""
    found = []
    for system in SYSTEMS:
        rounds = [it for it in document["rounds"] if it["system"] == system]
        lost = [str(sum(it[when]["lost"] for it in rounds)) for when in ("alone", "beside")]
        spans = [
            f"{1e3 * median(of(it[when]['round_trips_s']) for it in rounds):.2f} ms"
            for of in (median, lambda values: quantiles(values, n=100)[-1])
            for when in ("alone", "beside")
        ]
        found.append([system, str(PINGS * len(rounds)), *lost, *spans])
    return found


def section(document: Document, markdown: Callable[[list[str], list[list[str]]], str]) -> str:
    """The section of the page."""
    where, times = document["surroundings"], len(document["rounds"]) // len(SYSTEMS)
    return (
        "## One slow peer among three\n\n"
        "`make bench ARGS=--slow-peer`: host a sends one peer 20 Mbit/s of UDP, of which the way there takes 1 Mbit/s "
        "(an HTB class with a queue of 1,000 packets). A pod of a pings a pod of the other peer, "
        f"{1 / EVERY_S:.0f} times a second, alone and beside that. Medians of {times} rounds "
        f"in turn, on {where['cores']} cores of {where['cpu']}, Linux {where['kernel']}. What a slow peer adds "
        "to the others' round trip is the difference between *alone* and *beside*.\n\n"
        + markdown(HEADER, rows(document))
    )


def main(argv: Sequence[str]) -> int:
    """The sub-command; 1 where the other peer lost a packet of ours."""
    parser = argparse.ArgumentParser(prog="python -m bench slow-peer", description="What one slow peer costs others.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each system, default {ROUNDS}")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the figures go")
    options = parser.parse_args(argv)
    rootless.become_able("run it as root")
    progress = Progress(ROUND_S * options.rounds * len(SYSTEMS))
    with sigterm_unwinds():
        document = measure(options.rounds, progress)
    progress.end()
    result.save(document, options.json)
    print(render(HEADER, rows(document)))
    return 1 if any(it["beside"]["lost"] for it in document["rounds"] if it["system"] == "udp") else 0
