"""Whether this host's daemon drops what others send because of whom it is from: the source check.

The daemon's own figures, asked for when the other checks are done: what they have sent may be what is dropped, and the
answers, too. Which rule or node is to blame stands in no counter, so the cures say where to look.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from udpbackend.doctor.facts import Facts
from udpbackend.errors import HostError
from udpbackend.findings.finding import Finding, Results, Severity
from udpbackend.observe.losses import REFUSALS, evidence
from udpbackend.observe.report import Report


class Meaning(NamedTuple):
    """Of a counter that grows."""

    severity: Severity
    cure: str


MEANINGS: Mapping[str, Meaning] = {
    "rx_drop_inner_source": Meaning(
        "part",
        "on the nodes that send: a rule gives pods' packets another source (`iptables -t nat -S`, `nft list ruleset`: "
        "SNAT, MASQUERADE): leave {network} out of it; or the registry is not the same on both: compare `udp-backend "
        "status`. --source-check=peer lets them in",
    ),
    "rx_drop_unknown_peer": Meaning(
        "risk",
        "a node behind NAT, with several addresses, or not in this node's registry: set its --public-ip to the address "
        "that it sends from, compare `udp-backend status` on both; a stranger: let the firewall drop it",
    ),
}


async def look(facts: Facts) -> Results:
    """What has grown since the doctor began, or in the seconds before."""
    if facts.report is None:
        return []
    now = facts.report
    with suppress(HostError):
        now = await facts.ask()
    return judge(facts.report, now)


def judge(before: Report, now: Report) -> list[Finding]:
    """A finding for each counter."""
    lately = {it.counter: evidence(it) for report in (before, now) for it in report.refused}
    then = {it.name: it.value for it in before.counters}
    network = now.network.network if now.network else "the overlay's network"
    findings = []
    for cause in REFUSALS:
        grown = sum(it.value - then.get(it.name, 0) for it in now.counters if it.name == cause.counter)
        seen = lately.get(cause.counter) or (f"{grown:,} meanwhile" if grown > 0 else "")
        if seen:
            meaning = MEANINGS[cause.counter]
            cure = meaning.cure.format(network=network)
            findings.append(
                Finding(meaning.severity, f"packets are lost: {cause.why}", f"{cause.counter}: {seen}", cure)
            )
    return findings
