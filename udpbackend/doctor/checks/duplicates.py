"""Whether two nodes claim the same subnet or are known by the same public IP.

Looks at the leases as the daemon has them. A registry of Kubernetes leaves such nodes out, so there the API server is
asked for what the nodes themselves say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from udpbackend.doctor.api import cluster
from udpbackend.doctor.facts import Facts
from udpbackend.doctor.finding import Finding, NotChecked, Results, count, named
from udpbackend.doctor.peers import called
from udpbackend.errors import UdpBackendError
from udpbackend.model import Prefix


class Claim(NamedTuple):
    """What one node says it has."""

    node: str
    public_ip: str
    """Empty where it says none."""
    subnets: Sequence[str]


async def look(facts: Facts) -> Results:
    """Subnets that overlap, public IPs that occur twice."""
    if facts.kubernetes:
        try:
            return judge(await _of_nodes(facts))
        except UdpBackendError as error:
            return [*judge(_of_report(facts)), NotChecked(f"the nodes of Kubernetes are not known: {error}")]
    if facts.report is None:
        return [NotChecked("no daemon answers, so its leases are not known")]
    return judge(_of_report(facts))


def judge(claims: Sequence[Claim]) -> list[Finding]:
    """Everything that is claimed twice."""
    found = []
    if twice := _addresses(claims):
        found.append(
            Finding(
                "part",
                f"{count(len(twice), 'public IP')} of more than one node: packets for one of them reach another",
                named(twice),
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


def _addresses(claims: Sequence[Claim]) -> list[str]:
    holders: dict[str, list[str]] = {}
    for claim in claims:
        if claim.public_ip:
            holders.setdefault(claim.public_ip, []).append(f"{claim.node} with {','.join(claim.subnets)}")
    found = (f"{address} is that of {' and '.join(it)}" for address, it in holders.items() if len(it) > 1)
    return sorted(found)


def _overlaps(claims: Sequence[Claim]) -> Iterable[str]:
    """Prefixes overlap only by nesting, and then they are neighbours in their order."""
    held = sorted((Prefix.parse(text, mask=True), claim.node) for claim in claims for text in claim.subnets)
    by_version = ([it for it in held if it[0].version == version] for version in (4, 6))
    for order in by_version:
        for (one, node), (other, neighbour) in pairwise(order):
            if one.overlaps(other):
                yield f"{one} of {node} and {other} of {neighbour}"


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
