"""Whether what moves the packets goes before other programs when the host is busy."""

from __future__ import annotations

from udpbackend.doctor.facts import Facts
from udpbackend.findings.finding import Finding, Results
from udpbackend.observe.report import Report


async def look(facts: Facts) -> Results:
    """As the daemon itself says."""
    return judge(facts.report) if facts.report else []


def judge(report: Report) -> list[Finding]:
    """A priority that was asked for and refused."""
    if report.movers is None or not report.movers.refused:
        return []
    return [
        Finding(
            "risk",
            "packets have to wait where other programs are busy",
            report.movers.refused,
            "grant the daemon the capability SYS_NICE, as the manifest does, or LimitNICE=-20, as the unit does; or "
            "--nice=0, if this host is never busy",
        )
    ]
