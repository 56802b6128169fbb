"""What happens to a packet to one address, step by step, each with where that is known from.

Reads the daemon's report and asks the kernel for its routes; changes nothing and sends nothing. Must not know how steps
are shown. Four kinds of address: of a pod of this node, of another node's, of the overlay but nobody's, and outside.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import msgspec
from pyroute2.netlink.exceptions import NetlinkError

from udpbackend.doctor.checks import firewall
from udpbackend.doctor.facts import Facts
from udpbackend.doctor.peers import called, heard
from udpbackend.errors import HostError
from udpbackend.findings.finding import Finding
from udpbackend.host.forward_passage import Passage
from udpbackend.host.mark import BRIDGE
from udpbackend.model import Prefix
from udpbackend.observe.report import Peer, Report, age

RTM_F_FIB_MATCH = 0x2000
"""The route itself and not the way that follows from it (linux/rtnetlink.h, Linux 4.13)."""
MAIN = 254
PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", 16: "dhcp", 186: "bgp"}
"""Who made a route, as `ip route` calls them (linux/rtnetlink.h). Ours are boot, as flannel's, or 117."""
UDP_OVERHEAD_BYTES = 28

Address = IPv4Address | IPv6Address


class Step(msgspec.Struct, frozen=True):
    """One thing that happens to the packet."""

    what: str
    source: str
    """Where this is known from."""
    wrong: bool = False
    """Whether the packet comes to its end here."""


@dataclass(slots=True)
class Journey:
    """The steps, and to whom they lead."""

    steps: list[Step] = field(default_factory=list)
    peer: Peer | None = None
    overlay: bool = False
    """Whether the packet is to pass through the daemon."""

    def add(self, what: str, source: str, *, wrong: bool = False) -> None:
        """One more step."""
        self.steps.append(Step(what, source, wrong))

    @property
    def end(self) -> Step | None:
        """The first step that is the last for the packet."""
        return next((step for step in self.steps if step.wrong), None)


async def follow(facts: Facts, report: Report, target: Address, pod: Address | None) -> Journey:
    """The way of a packet to `target` from this host, or from its pod with that address."""
    journey = Journey()
    _owner(journey, report, target)
    expected = _expected(journey, report, target)
    await _route(journey, facts, target, pod, expected)
    if journey.peer and journey.overlay:
        await _outer(journey, facts, report, journey.peer)
    await _rules(journey, facts, target, pod)
    return journey


def _owner(journey: Journey, report: Report, target: Address) -> None:
    """Whose address it is."""
    network = report.network
    known = f"registry {report.registry.kind}" + (
        "" if report.registry.age_s is None else f", view {age(report.registry.age_s)} old"
    )
    ours = _holding([network.subnet, network.ipv6_subnet] if network else [], target)
    if ours:
        journey.add(f"{target} is in {ours}, this node's own subnet: a pod here, or nobody", known)
        return
    for peer in report.peers:
        if subnet := _holding(peer.subnets, target):
            journey.peer = peer
            journey.add(f"{target} is in {subnet}, the subnet of {called(peer)}, {heard(peer)}", known)
            return
    for other in report.ignored:
        if subnet := _holding(other.subnets, target):
            words = f"{target} is in {subnet} of {other.node}, which another backend ({other.backend}) reaches"
            journey.add(words, known, wrong=True)
            return
    whole = _holding([network.network, network.ipv6_network] if network else [], target)
    if whole:
        words = f"{target} is in the overlay's network {whole}, but no node has a subnet with it"
        journey.add(words, known, wrong=True)
    else:
        journey.add(f"{target} is outside the overlay", known)


def _holding(subnets: Iterable[str | None], target: Address) -> str | None:
    return next((it for it in subnets if it and Prefix.parse(it).holds(target)), None)


def _expected(journey: Journey, report: Report, target: Address) -> str | None:
    """The device by which the packet should leave; None where any will do."""
    if journey.peer and report.interface:
        journey.overlay = report.interface.overlay_device is not None
        inside6 = target.version == 6 and report.interface.overlay_ipv6_device
        return inside6 or report.interface.overlay_device
    return None


async def _route(journey: Journey, facts: Facts, target: Address, pod: Address | None, expected: str | None) -> None:
    names = {link.index: link.name for link in facts.links}
    bridge = next((link.index for link in facts.links if link.name == BRIDGE), None)
    asked: dict[str, Any] = {"dst": str(target)}
    if pod is not None:
        if bridge is None:
            journey.add(f"a packet of the pod {pod} cannot be followed: this host has no {BRIDGE}", "links", wrong=True)
            return
        asked |= {"src": str(pod), "iif": bridge}

    async def find(ip: Any) -> tuple[Any, Any] | str:
        try:
            way = (await ip.route("get", **asked))[0]
            matched = (await ip.route("get", flags=RTM_F_FIB_MATCH, **asked))[0]
        except NetlinkError as error:
            return os.strerror(error.code)
        return way, matched

    found = await facts.netlink.call(find)
    sender = "this host" if pod is None else f"the pod {pod}"
    if isinstance(found, str):
        journey.add(f"the kernel has no way for a packet of {sender}: {found}", "the kernel's routes", wrong=True)
        return
    way, matched = found
    device = names.get(way.get_attr("RTA_OIF"), "no device")
    via = f" via {way.get_attr('RTA_GATEWAY')}" if way.get_attr("RTA_GATEWAY") else ""
    route = f"{matched.get_attr('RTA_DST') or 'default'}/{matched['dst_len']}" if matched["dst_len"] else "default"
    table = matched.get_attr("RTA_TABLE") or matched["table"]
    source = f"route {route}, protocol {PROTOCOLS.get(matched['proto'], matched['proto'])}" + (
        "" if table == MAIN else f", table {table}"
    )
    if expected and device != expected:
        words = f"the kernel sends it by {device}{via}, not by {expected}: another route is more specific or a rule is"
        journey.add(words, source, wrong=True)
    else:
        journey.add(f"the kernel sends it by {device}{via}", source)


async def _outer(journey: Journey, facts: Facts, report: Report, peer: Peer) -> None:
    """Beneath the overlay: the datagram's own way, and how much passes."""
    names = {link.index: link.name for link in facts.links}

    async def find(ip: Any) -> tuple[Any, str]:
        try:
            return (await ip.route("get", dst=peer.public_ip))[0], ""
        except NetlinkError as error:
            return None, os.strerror(error.code)

    way, error = await facts.netlink.call(find)
    if way is None:
        journey.add(f"the datagram has no way to {peer.public_ip}: {error}", "the kernel's routes", wrong=True)
        return
    device = names.get(way.get_attr("RTA_OIF"), "no device")
    if report.interface and device == report.interface.overlay_device:
        journey.add(f"the datagram to {peer.public_ip} would go by {device} itself", "the kernel's routes", wrong=True)
        return
    port = f" port {peer.port}" if peer.port else ""
    journey.add(f"its datagram goes to {peer.public_ip}{port} by {device}", "the kernel's routes")
    room = report.interface and report.interface.overlay_mtu
    if peer.path_mtu is not None:
        room = peer.path_mtu - UDP_OVERHEAD_BYTES
        source = f"path MTU {peer.path_mtu} learned, believed for {age(peer.path_mtu_left_s)} more"
    else:
        source = "the overlay's MTU; no narrower path was learned"
    journey.add(f"packets of up to {room} bytes pass whole", source)


async def _rules(journey: Journey, facts: Facts, target: Address, pod: Address | None) -> None:
    """What the doctor finds wrong with filters, for packets that are forwarded; a peer's by their own addresses."""
    if pod is None:
        journey.add("packets of this host itself are not forwarded: rules of FORWARD do not apply", "iptables, nft")
        return
    way = next((it for it in firewall.passages(facts) if journey.peer and it.network.holds(target)), None)
    if way and way.subnet.holds(pod):
        looked = await _walk(journey, replace(way, subnet=_alone(pod), far=_alone(target)))
    else:
        looked = await _general(journey, facts)
    if not looked:
        return
    masquerade = bool(facts.env and facts.env.ip_masq) and not journey.peer
    words = "its source is masqueraded" if masquerade else "its source stays as it is"
    journey.add(f"no rule of FORWARD that is ours to judge stops it; {words}", "iptables, nft, subnet.env")


async def _general(journey: Journey, facts: Facts) -> bool:
    """Whether nothing is wrong with what is said of all nodes."""
    for result in await firewall.rules(facts):
        if isinstance(result, Finding):
            journey.add(result.what, f"doctor: {result.evidence}", wrong=result.severity == "down")
        else:
            journey.add(f"rules not looked at: {result.why}", "iptables, nft")
        return False
    return True


async def _walk(journey: Journey, way: Passage) -> bool:
    """Whether nothing is in the way of these very packets."""
    try:
        found = await firewall.ends(way)
    except HostError as error:
        journey.add(f"rules not looked at: {error}", "iptables, nft")
        return False
    for it in found:
        what = "the firewall drops it" if it.leaving else "the firewall drops what comes back"
        journey.add(what, it.what, wrong=True)
    return not found


def _alone(address: Address) -> Prefix:
    return Prefix(int(address), address.max_prefixlen, address.version)


def moved(before: Report, after: Report, peer: Peer) -> list[tuple[str, int]]:
    """Our counters that a packet to the peer and its answer moves, in the order of the way, with how far they moved."""
    counters = [{it.name: it.value for it in report.counters} for report in (before, after)]
    peers = [next((it for it in report.peers if it.public_ip == peer.public_ip), peer) for report in (before, after)]
    drops = [it for it in after.counters if it.kind == "dropped" and it.value > counters[0].get(it.name, 0)]
    return [
        ("tx_received", counters[1].get("tx_received", 0) - counters[0].get("tx_received", 0)),
        ("tx to the peer", peers[1].tx_packets - peers[0].tx_packets),
        ("rx from the peer", peers[1].rx_packets - peers[0].rx_packets),
        ("rx_delivered", counters[1].get("rx_delivered", 0) - counters[0].get("rx_delivered", 0)),
        *((it.name, it.value - counters[0].get(it.name, 0)) for it in drops),
    ]
