"""Whether there are nodes of another backend than ours, with which no packet is exchanged."""

from __future__ import annotations

from udpbackend.doctor.facts import Facts
from udpbackend.findings.finding import Finding, NotChecked, Results, count, named


async def look(facts: Facts) -> Results:
    """Nodes that the daemon ignores."""
    report = facts.report
    if report is None or report.network is None:
        return [NotChecked(f"{facts.why_not_running}, so the nodes are not known")]
    if not report.ignored:
        return []
    others = [f"{it.node or it.public_ip} has {it.backend} ({','.join(it.subnets)})" for it in report.ignored]
    return [
        Finding(
            "part",
            f"{count(len(others), 'node')} of another backend cannot be reached from here",
            f"this node has {report.network.backend}; {named(others)}",
            "give all nodes one Backend.Type and restart their daemons; delete the leases of nodes that are gone",
        )
    ]
