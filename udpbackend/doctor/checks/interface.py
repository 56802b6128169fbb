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
from udpbackend.doctor.finding import Finding, NotChecked, Results, count, named
from udpbackend.doctor.routes import Way, ways
from udpbackend.host.interface import Link
from udpbackend.observe.report import Interface

CHOOSE = "choose the interface by which the nodes reach each other, with --iface or --iface-can-reach"


async def look(facts: Facts) -> Results:
    """The public IP, the peers' public IPs and the ways to them."""
    if facts.running is None:
        return [NotChecked(f"{facts.why_not_running}, so its interface is not known")]
    interface = facts.running[1]
    found = own(interface, facts.links)
    asked, unasked = peers.choose(facts.peers)
    targets = {it.public_ip: str(it) for it in asked if str(it.public_ip) != interface.public_ip}
    # From the daemon's own address where it still has it: rules may send by the source.
    source = interface.address if _held(facts.links, interface.address) else ""
    found += to_peers(interface, targets, await ways(facts, targets, source))
    return [*found, *unasked]


def own(interface: Interface, links: Sequence[Link]) -> list[Finding]:
    """Our own public IP."""
    public_ip, name = interface.public_ip, interface.name
    if public_ip != interface.address or _held(links, public_ip):
        return []
    return [
        Finding(
            "down",
            f"this node is known by {public_ip}, which no interface of it has any longer",
            f"this host has {', '.join(map(str, links))}; no --public-ip says that somebody else has it",
            f"ip address add {public_ip} dev {name}, or restart the daemon so that it takes the new address",
        )
    ]


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
    if looped:
        what = f"datagrams to {count(len(looped), 'peer')} go back into {overlay}, for ever"
        cure = f"remove the route to them by {overlay}, or choose a Network that holds no node's address"
        findings.append(Finding("down", what, named(looped), cure))
    if other:
        what = f"datagrams to {count(len(other), 'peer')} leave by another interface than {name}, which was chosen"
        cure = f"{CHOOSE}; or mend the route, if {name} is right"
        findings.append(Finding("part", what, named(other), cure))
    return findings


def _held(links: Sequence[Link], address: str) -> bool:
    return any(str(it.ip) == address for link in links for it in link.addresses)
