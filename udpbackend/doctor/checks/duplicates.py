"""Whether two nodes claim the same subnet or are known by the same public IP.

Looks at the leases as the daemon has them. A registry of Kubernetes leaves most such nodes out, so there the API server
is asked for what the nodes themselves say. A public IP that is ours too is a case of its own: as a rule all nodes have
chosen the NAT interface that looks the same on each of them, and then this one has no peers left to ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from udpbackend.doctor.api import cluster
from udpbackend.doctor.checks.interface import CHOOSE
from udpbackend.doctor.facts import Facts
from udpbackend.doctor.peers import called
from udpbackend.errors import UdpBackendError
from udpbackend.findings.finding import Finding, NotChecked, Results, count, named
from udpbackend.host import mark
from udpbackend.model import Prefix


class Claim(NamedTuple):
    """What one node says it has."""

    node: str
    public_ip: str
    """Empty where it says none."""
    subnets: Sequence[str]


class Here(NamedTuple):
    """By what this node is known."""

    public_ip: str
    interface: str
    others: str
    """The other interfaces that it could have chosen, with their addresses."""


async def look(facts: Facts) -> Results:
    """Subnets that overlap, public IPs that occur twice."""
    here = _here(facts)
    if facts.kubernetes:
        try:
            return judge(await _of_nodes(facts), here)
        except UdpBackendError as error:
            return [*judge(_of_report(facts), here), NotChecked(f"the nodes of Kubernetes are not known: {error}")]
    if facts.report is None:
        return [NotChecked("no daemon answers, so its leases are not known")]
    return judge(_of_report(facts), here)


def judge(claims: Sequence[Claim], here: Here | None = None) -> list[Finding]:
    """Everything that is claimed twice."""
    found = []
    twice = _addresses(claims)
    if here and (whose := twice.pop(here.public_ip, None)):
        found.append(_shared(here, whose))
    if twice:
        found.append(
            Finding(
                "part",
                f"{count(len(twice), 'public IP')} of more than one node: packets for one of them reach another",
                named(sorted(f"{address} is that of {whose}" for address, whose in twice.items())),
                "give each node an address of its own: --iface or --public-ip on the nodes that show a NAT address, or "
                "delete the lease of a node that is gone",
            )
        )
    if overlaps := list(_overlaps(claims)):
        found.append(
            Finding(
                "part",
                f"{count(len(overlaps), 'subnet')} of more than one node: their pods have the same addresses",
                named(overlaps),
                "give each node a podCIDR or a subnet of its own; in Kubernetes delete and join one of the nodes again",
            )
        )
    return found


def _shared(here: Here, whose: str) -> Finding:
    return Finding(
        "down",
        f"this node is known by {here.public_ip}, and so are others: {here.interface} is most likely a NAT interface",
        f"{here.public_ip} is that of {whose}; besides {here.interface} this host has {here.others or 'no interface'}",
        f"{CHOOSE}, on every node; behind NAT give each node its own --public-ip; if the others are gone for good, "
        "delete their nodes or leases",
    )


def _addresses(claims: Sequence[Claim]) -> dict[str, str]:
    """Addresses that occur more than once, and whose they are."""
    holders: dict[str, list[str]] = {}
    for claim in claims:
        if claim.public_ip:
            holders.setdefault(claim.public_ip, []).append(f"{claim.node} with {','.join(claim.subnets)}")
    return {address: " and ".join(it) for address, it in holders.items() if len(it) > 1}


def _overlaps(claims: Sequence[Claim]) -> Iterable[str]:
    """Prefixes overlap only by nesting, and then they are neighbours in their order."""
    held = sorted((Prefix.parse(text, mask=True), claim.node) for claim in claims for text in claim.subnets)
    by_version = ([it for it in held if it[0].version == version] for version in (4, 6))
    for order in by_version:
        for (one, node), (other, neighbour) in pairwise(order):
            if one.overlaps(other):
                yield f"{one} of {node} and {other} of {neighbour}"


def _here(facts: Facts) -> Here | None:
    if facts.running is None:
        return None
    chosen = facts.running[1]
    taken = (chosen.name, mark.BRIDGE)
    others = (it for it in facts.links if it.usable() and it.name not in taken and not mark.overlays(it.name))
    return Here(chosen.public_ip, chosen.name, ", ".join(map(str, others)))


def _of_report(facts: Facts) -> list[Claim]:
    """Each subnet as a claim of its own: the daemon lists the leases of one public IP together."""
    claims = []
    for peer in facts.peers:
        subnets = {version: [it for it in peer.subnets if Prefix.parse(it).version == version] for version in (4, 6)}
        longest = max(len(subnets[4]), len(subnets[6]))
        for at in range(longest):
            share = [*subnets[4][at : at + 1], *subnets[6][at : at + 1]]
            claims.append(Claim(called(peer), peer.public_ip, share))
    if facts.running:
        network, interface = facts.running
        own = [it for it in (network.subnet, network.ipv6_subnet) if it]
        claims.append(Claim("this node", interface.public_ip, own))
    return claims


async def _of_nodes(facts: Facts) -> list[Claim]:
    async with cluster(facts) as api:
        return [Claim(node.name, node.public_ip, node.pod_cidrs) for node in await api.nodes()]
