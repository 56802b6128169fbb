"""Whether this host loses packets that are good: for want of room or time, of a way or of a permission."""

from __future__ import annotations

from udpbackend.doctor.facts import Facts
from udpbackend.findings.finding import Finding, Results
from udpbackend.observe.losses import evidence
from udpbackend.observe.report import Report


async def look(facts: Facts) -> Results:
    """As the daemon itself says, with the cure of each."""
    return judge(facts.report) if facts.report else []


def judge(report: Report) -> list[Finding]:
    """A finding for each cause."""
    return [Finding("part", it.what, evidence(it), it.cure) for it in report.losses]
