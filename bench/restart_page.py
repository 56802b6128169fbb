"""What restarts cost, as tables: on the terminal, on the first page in short, and in full on the page of figures.

Pure: the document of `python -m bench restart` in, rows and Markdown out.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

from bench.restart_systems import SYSTEMS

HEADER = ["system", "event", "a second", "came", "times", "lost", "out of order", "longest gap", "its median"]
HEADER_TCP = ["system", "event", "times", "connections lost", "connects failed", "longest stall", "its median"]
NO_RUN = "*No run is recorded here yet: `make bench ARGS=--restart`.*"
IN_SHORT = {
    "stream": (("udp", "upgrade"), ("vxlan", "upgrade")),
    "connections": (("udp", "upgrade"), ("udp, fds kept", "kill"), ("udp", "kill"), ("vxlan", "kill")),
}
"""What the first page shows of it, by what is watched: systems and events."""

Document = dict[str, Any]
Table = Callable[[list[str], list[list[str]]], str]


def rows(document: Document, under: str) -> list[list[str]]:
    """A row for each series of that kind."""
    found = []
    for series in document["series"]:
        seen = series["seen"]
        if series["under"] != under or not seen:
            continue
        first, second, gap = ("lost", "late", "pause_s") if under == "stream" else ("lost", "failed", "stall_s")
        gaps = [max(it[gap], it.get("connect_s", 0.0)) for it in seen]
        counted = [str(sum(it[name] for it in seen)) for name in (first, second)]
        spans = [f"{1000 * value:.1f} ms" for value in (max(gaps), median(gaps))]
        speed = [f"{series['rate']:,}", f"{came(seen):,.0f}"] if under == "stream" else []
        found.append([series["system"], series["event"], *speed, str(len(seen)), *counted, *spans])
    return found


def came(seen: list[dict[str, Any]]) -> float:
    """Datagrams a second."""
    return float(median(it["came"] / it["span_s"] for it in seen))


def in_short(document: Document, markdown: Table) -> str:
    """What is promised of upgrades and crashes, beside what VXLAN does."""
    chosen = {
        under: [row for row in rows(document, under) if (row[0], row[1]) in shown] for under, shown in IN_SHORT.items()
    }
    return (
        f"Pod to pod on a {document['link']} link{_where(document)}. A stream of datagrams:\n\n"
        f"{markdown(HEADER, chosen['stream'])}\n\n"
        f"{document['connections']:,} TCP connections, and {document['new_per_s']:.0f} new ones a second:\n\n"
        f"{markdown(HEADER_TCP, chosen['connections'])}"
    )


def section(document: Document, markdown: Table) -> str:
    """The section of the page."""
    skipped = "".join(f"Not measured: {name} ({why}). " for name, why in document["skipped"].items())
    what = "".join(f"- *{name}*: {kind.what}\n" for name, kind in SYSTEMS.items() if name not in document["skipped"])
    return (
        "## Restart, upgrade, crash\n\n"
        f"`make bench ARGS=--restart`, pod to pod on a {document['link']} link{_where(document)}. {skipped}\n\n{what}\n"
        "A stream of datagrams, watched across each event by itself. *came* is what came of it in a second. "
        "Where that is less than it should be, and none was lost, all cores were full. A gap is the "
        "longest time that a datagram was under way, or the longest stretch that never came. *nothing* is the same "
        "stream watched for as long as an upgrade takes, without one: what the machine does to it by itself:\n\n"
        + markdown(HEADER, rows(document, "stream"))
        + f"\n\n{document['connections']:,} TCP connections that each say a word every two seconds, and "
        f"{document['new_per_s']:.0f} new ones a second. A stall is the longest time that an echo or a new connection "
        "took:\n\n" + markdown(HEADER_TCP, rows(document, "connections"))
    )


def _where(document: Document) -> str:
    it = document["surroundings"]
    return f", {it['cores']} cores of {it['cpu']}, Linux {it['kernel']}"
