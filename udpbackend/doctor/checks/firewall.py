"""Whether the rules are there that let pods out, and whether any rule ends what passes between pods and other nodes.

Masquerading is wanted where subnet.env says so, and must then be held by iptables or by nftables. What forwards packets
is walked through as a packet would: rules and policies of whoever has made them, in both, for the network as a whole
and for each of the peers that are asked, since a rule may be about one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from udpbackend.doctor import peers
from udpbackend.doctor.aside import aside
from udpbackend.doctor.facts import Facts
from udpbackend.errors import HostError
from udpbackend.findings.finding import Finding, NotChecked, Results
from udpbackend.host import firewall_program
from udpbackend.host.firewall_rules import MASQUERADE, NFT_TABLES, FirewallPlan, iptables_rules
from udpbackend.host.firewall_shared import keep_others
from udpbackend.host.forward_look import Obstacle, obstacles
from udpbackend.host.forward_passage import Passage
from udpbackend.host.iptables import Iptables
from udpbackend.host.nftables import Nftables
from udpbackend.model import Prefix

NFT_TABLE = NFT_TABLES[4]


async def look(facts: Facts) -> Results:
    """Rules that are wanted and missing, and rules that should not be."""
    asked, _ = peers.choose(facts.peers)
    return await rules(facts, [Prefix.parse(subnet) for it in asked for subnet in it.peer.subnets])


async def rules(facts: Facts, far: Sequence[Prefix] = ()) -> Results:
    """The same, of rules about all nodes or about these subnets of others."""
    ways = passages(facts)
    if not ways:
        return [NotChecked("what this node's subnet is, neither a daemon nor subnet.env says")]
    single = [replace(way, far=it) for way in ways for it in far if way.network.contains(it)]
    return await _look([*ways, *single], masquerade=bool(facts.env and facts.env.ip_masq))


@aside
def ends(way: Passage) -> list[Obstacle]:
    """What is in the way of these packets. Raises HostError."""
    return obstacles([way], older=True)


def passages(facts: Facts) -> list[Passage]:
    """The ways of the overlay's packets, one for each IP version."""
    network, subnet = facts.network, facts.subnet
    if network is None or subnet is None:
        return []
    device = facts.overlay or (facts.running[1].name if facts.running else "")
    ways = [Passage(network, subnet, device)]
    if facts.running and facts.running[0].ipv6_network and facts.running[0].ipv6_subnet:
        network6, subnet6 = map(Prefix.parse, (facts.running[0].ipv6_network, facts.running[0].ipv6_subnet))
        ways.append(Passage(network6, subnet6, facts.running[1].overlay_ipv6_device or device))
    return ways


@aside
def _look(ways: Sequence[Passage], *, masquerade: bool) -> Results:
    if not any(map(firewall_program.installed, ("iptables", "nft"))):
        return [NotChecked("neither iptables nor nft is on PATH")]
    try:
        found = _masquerade(ways[0].network, ways[0].subnet) if masquerade else []
        return [*found, *map(finding, obstacles(ways, older=True))]
    except HostError as error:
        return [NotChecked(str(error))]


def finding(obstacle: Obstacle) -> Finding:
    """What an obstacle means."""
    what = "the firewall drops what passes between pods and the overlay"
    if obstacle.whole:
        return Finding("down", what, obstacle.what, obstacle.cure)
    return Finding("part", f"{what}, in part", obstacle.what, obstacle.cure)


def _masquerade(network: Prefix, subnet: Prefix) -> list[Finding]:
    if any(str(network) in line and "masquerade" in line for line in Nftables().held()[NFT_TABLE]):
        return []
    if not firewall_program.installed("iptables"):
        return [_missing(f"nftables has no table {NFT_TABLE} for it, and iptables is not on PATH")]
    # Whether source ports are to be random only the daemon's flags say.
    gaps = [_gaps(FirewallPlan(network, subnet, masquerade=True, fully_random=it)) for it in (True, False)]
    if not all(gaps):
        return []
    return [_missing(f"{'; '.join(gaps[0])}; nftables has no table {NFT_TABLE} for it")]


def _missing(evidence: str) -> Finding:
    return Finding(
        "part",
        "what pods send out of the overlay is not masqueraded: answers from outside do not find back",
        f"subnet.env says FLANNEL_IPMASQ=true; {evidence}",
        "restart the daemon with --ip-masq; if the rules vanish again, another program flushes them",
    )


def _gaps(plan: FirewallPlan) -> tuple[str, ...]:
    wanted = iptables_rules(plan, 4)[MASQUERADE.table]
    return Iptables(4).look({MASQUERADE.table: wanted}, keep_others([plan.network]))
