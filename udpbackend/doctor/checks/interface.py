"""Whether the interface that was chosen is the one by which the nodes reach each other.

The usual mistake: the default route leads through an interface that looks the same on every node (the NAT interface of
a virtual machine, a bridge for containers). Where the nodes are then known by one address, that is found by
duplicates.py, which knows what every node says; here it is an address that nobody reaches, or only by another way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from udpbackend.doctor import peers
from udpbackend.doctor.facts import Facts
from udpbackend.doctor.routes import Way, ways
from udpbackend.findings import address, mtu, routes
from udpbackend.findings.finding import Finding, NotChecked, Results, count, named
from udpbackend.host.interface import Link
from udpbackend.observe.report import Interface

CHOOSE = "choose the interface by which the nodes reach each other, with --iface or --iface-can-reach"


async def look(facts: Facts) -> Results:
    """The public IP, the peers' public IPs and the ways to them."""
    if facts.running is None:
        return [NotChecked(f"{facts.why_not_running}, so its interface is not known")]
    interface = facts.running[1]
    here = facts.here
    found: list[Finding] = []
    if here:
        found += address.judge(here, {it.ip for link in facts.links for it in link.addresses})
        found += [it for link in facts.links if link.name == here.interface for it in mtu.judge(here, link.mtu)]
    asked, unasked = peers.choose(facts.peers)
    targets = {it.public_ip: str(it) for it in asked if str(it.public_ip) != interface.public_ip}
    # From the daemon's own address where it still has it: rules may send by the source.
    source = interface.address if _held(facts.links, interface.address) else ""
    found += to_peers(interface, targets, await ways(facts, targets, source))
    return [*found, *unasked]


def to_peers(interface: Interface, names: Mapping[IPv4Address, str], found: Mapping[IPv4Address, Way]) -> list[Finding]:
    """The ways to the peers; `names` are what they are called."""
    name, overlay = interface.name, interface.overlay_device
    local = [names[it] for it, way in found.items() if way.local]
    nowhere = [f"{names[it]}: {way.error}" for it, way in found.items() if not way.device]
    looped = [names[it] for it, way in found.items() if overlay and way.device == overlay]
    other = [
        f"{names[it]} by {way.device}"
        for it, way in found.items()
        if way.device not in ("", name, overlay) and not way.local
    ]
    findings = []
    if local:
        what = f"{count(len(local), 'peer')} known by an address of this very host"
        cure = f"there, {CHOOSE}: its address is one that every node has"
        findings.append(Finding("part", what, named(local), cure))
    if nowhere:
        what = f"there is no way to the public IP of {count(len(nowhere), 'peer')}"
        findings.append(Finding("part", what, named(nowhere), f"add a route by {name}, or {CHOOSE}, here or there"))
    if looped and overlay:
        findings.append(routes.looped(looped, overlay))
    if other:
        what = f"datagrams to {count(len(other), 'peer')} leave by another interface than {name}, which was chosen"
        cure = f"{CHOOSE}; or mend the route, if {name} is right"
        findings.append(Finding("part", what, named(other), cure))
    return findings


def _held(links: Sequence[Link], address: str) -> bool:
    return any(str(it.ip) == address for link in links for it in link.addresses)
