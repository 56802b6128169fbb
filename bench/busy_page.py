"""The section of the page on busy hosts: what the overlay keeps beside programs that compute without end.

Pure: a document of `python -m bench --busy` in, Markdown out. Owns the floors of these rows.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench import links, show, systems
from bench.show import Index, Row

FLOORS = {
    ("pass-through", "tcp-1"): (0.45, 0.6),
    ("wire", "tcp-1"): (0.90, 1.1),
    ("wire", "tcp-4"): (1.1, 1.4),
}
"""Beside as many loops as there are cores: the ratio to VXLAN that each must reach, and the one that is aimed at."""
METRICS = {
    "tcp-1": ("throughput_bps",),
    "tcp-4": ("throughput_bps",),
    "udp-1400": ("delivered_pps",),
    "pingpong": ("latency_p50_s", "latency_p99_s"),
}

HEADER = ("loops", "link", "workload", "VXLAN", "udp", "udp : VXLAN", "verdict", "floor", "goal")

NO_RUN = "*No run is recorded here yet: `make bench ARGS=--busy`.*"

Document = dict[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]

Key = tuple[str, str, int, str, str]
"""Link, path, MTU, workload and metric."""


def _find(index: Index, system: str, key: Key, loops: int) -> tuple[Row, Row] | None:
    """A row and its ratio to the reference."""
    row = index.row(system, key, loops)
    ratio = row and index.ratio(row, systems.REFERENCE)
    return (row, ratio) if row and ratio else None


def _ratio(ratio: Row) -> str:
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})"


def _loops(document: Document) -> list[int]:
    return sorted({show.hogs(row) for row in document["rows"]})


def priority(document: Document) -> Iterator[Sequence[str]]:
    """One stream, quiet and beside as many loops as cores, with and without priority."""
    index = Index(document)
    for loops in _loops(document)[:2]:
        for link in reversed(links.NAMES[:2]):
            key = (link, "host-host", 1500, "tcp-1", "throughput_bps")
            cells = [_find(index, it, key, loops) for it in ("udp", systems.ORDINARY)]
            theirs = index.row(systems.REFERENCE, key, loops)
            if theirs and all(cells):
                surroundings = f"beside {loops} loops" if loops else "quiet"
                figures = [_ratio(found[1]) for found in cells if found]
                yield (f"{link}, {surroundings}", show.value(theirs["median"], theirs["unit"]), *figures)


def beside(document: Document) -> Iterator[Sequence[str]]:
    """Every workload beside the loops."""
    index = Index(document)
    counts = [it for it in _loops(document) if it]
    keys = [
        (link, "host-host", 1500, workload, metric)
        for link in reversed(links.NAMES[:2])
        for workload, metrics in METRICS.items()
        for metric in metrics
    ]
    for loops, key in itertools.product(counts, keys):
        found = _find(index, "udp", key, loops)
        theirs = index.row(systems.REFERENCE, key, loops)
        if found and theirs:
            ours, ratio = found
            figures = [show.value(row["median"], row["unit"]) for row in (theirs, ours)]
            aims = FLOORS.get((key[0], key[3]), ()) if loops == counts[0] else ()
            verdict = ratio["verdict"] if ours["proof"] == theirs["proof"] == "ok" else "no proof"
            what = f"{key[3]}{show.which(ours)}"
            yield (str(loops), key[0], what, *figures, _ratio(ratio), verdict, *_aims(aims))


def _aims(aims: Sequence[float]) -> list[str]:
    return [f"≥ {it:g}" for it in aims] or ["-", "-"]


def in_short(document: Document, markdown: Table) -> str:
    """One stream with and without priority, and the rows that have a floor."""
    header = ("link", "VXLAN", "udp : VXLAN", "udp with --nice=0 : VXLAN")
    held = [row for row in beside(document) if row[-1] != "-"]
    return (
        f"{_where(document)} One TCP stream, host to host, with and without priority:\n\n"
        f"{markdown(header, list(priority(document)))}\n\n"
        f"Beside as many loops as there are cores:\n\n{markdown(HEADER, held)}"
    )


def in_full(document: Document, markdown: Table) -> str:
    """All that was measured beside loops."""
    return f"{_where(document)} Host to host:\n\n{markdown(HEADER, list(beside(document)))}"


def _where(document: Document) -> str:
    machine, settings = document["machine"], document["settings"]
    return (
        f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, {settings['pairs']} pairs of "
        f"{settings['seconds']} s, load before {machine['load_at_start'][0]:g}."
    )
