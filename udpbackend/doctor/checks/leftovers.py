"""What an earlier cluster has left on this host: devices, addresses and routes that lead packets astray.

A bridge cni0 with the gateway of another subnet keeps pods from starting, since the bridge plugin refuses it; a route
that is longer than ours takes its packets away from the overlay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from udpbackend.doctor.facts import Facts
from udpbackend.doctor.finding import Finding, NotChecked, Results, named
from udpbackend.host import mark, rtnetlink
from udpbackend.host.interface import Link
from udpbackend.host.mark import BRIDGE
from udpbackend.host.netlink import failing
from udpbackend.model import Prefix


async def look(facts: Facts) -> Results:
    """cni0, flannel*, and routes inside the network."""
    network, subnet = facts.network, facts.subnet
    if network is None or subnet is None:
        return [NotChecked("what this node's subnet is, neither a daemon nor subnet.env says")]
    overlay = facts.overlay
    second = facts.running and facts.running[1].overlay_ipv6_device
    found = list(devices([link for link in facts.links if link.name != second], subnet, overlay))
    if overlay is None:
        return found  # the backend may be one whose routes lead straight to the other nodes
    return found + routes(await _routes_inside(facts, network), subnet, overlay)


def devices(links: Sequence[Link], subnet: Prefix, overlay: str | None) -> Iterator[Finding]:
    """Addresses that do not belong to today's subnet; the overlay's device has its base alone."""
    for link in links:
        held = [address.ip for address in link.addresses]
        if link.name == BRIDGE and (foreign := [ip for ip in held if not subnet.holds(ip)]):
            yield Finding(
                "part",
                f"the bridge {BRIDGE} is of another network: new pods cannot be attached to it",
                f"{BRIDGE} has {_list(foreign)}, this node's subnet is {subnet}",
                f"move the pods away (kubectl drain), then ip link delete {BRIDGE}: the CNI plugin makes it again",
            )
        elif link.name == overlay and (foreign := [ip for ip in held if ip != subnet.base]):
            yield Finding(
                "risk",
                f"{overlay} has an address that is not this node's",
                f"{overlay} has {_list(foreign)}, expected {subnet.base} alone",
                f"ip address delete {foreign[0]} dev {overlay}; a restart of the daemon does it too",
            )
        elif mark.overlays(link.name) and link.name != overlay and held:
            yield Finding(
                "part",
                f"the device {link.name} of an earlier network is still there",
                f"{link.name} has {_list(held)}, the overlay of this node is {overlay or 'without a device'}",
                f"ip link delete {link.name}, once no other flannel runs on this host",
            )


def routes(inside: Mapping[str, Sequence[Prefix]], subnet: Prefix, overlay: str) -> list[Finding]:
    """Routes inside the network that lead elsewhere, by device."""
    astray = [
        f"{destination} dev {device}"
        for device, found in inside.items()
        for destination in found
        if device != overlay and not subnet.contains(destination)
    ]
    if not astray:
        return []
    return [
        Finding(
            "part",
            f"packets for other nodes' pods do not go into {overlay}: routes of an earlier network take them",
            named(astray),
            f"ip route delete {astray[0]}, and so on; if they come back, another network plugin still runs here",
        )
    ]


async def _routes_inside(facts: Facts, network: Prefix) -> dict[str, list[Prefix]]:
    async def read(ip: Any) -> dict[str, list[Prefix]]:
        with failing("read the routing table"):
            return {
                link.name: [
                    _destination(it)
                    for it in await rtnetlink.main_routes_of(ip, link.index)
                    if it["proto"] != rtnetlink.PROTO_OURS  # DirectRouting has such, past the device
                ]
                for link in facts.links
            }

    found = await facts.netlink.call(read)
    return {device: [it for it in held if network.contains(it) and it != network] for device, held in found.items()}


def _destination(message: Any) -> Prefix:
    return Prefix(int(IPv4Address(message.get_attr("RTA_DST") or 0)), message["dst_len"])


def _list(addresses: Any) -> str:
    return ", ".join(map(str, addresses))
