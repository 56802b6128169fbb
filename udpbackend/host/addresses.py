"""The links, addresses and ways out of this host, as plain data.

Owns the reading over netlink that `interface` chooses from, and the list of local addresses nobody else may claim.
Must not know the rules of the choice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from udpbackend.host import mark, rtnetlink
from udpbackend.host.interface import IP, Address, Link, Ways, choose, explicit
from udpbackend.host.netlink import Netlink, failing
from udpbackend.model import WIDTH, Endpoint, Prefix
from udpbackend.settings import Settings

DEFAULT = Prefix(0, 0)
IFA_F_TEMPORARY, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_PERMANENT = 0x01, 0x08, 0x20, 0x80


async def select_endpoint(netlink: Netlink, settings: Settings) -> Endpoint:
    """The interface and addresses to use; HostError where what the operator said cannot be met."""
    links = await read_links(netlink)
    ways = await netlink.call(lambda ip: _ways(ip, settings, links))
    return choose(settings, [link for link in links if not mark.overlays(link.name)], ways)


async def read_links(netlink: Netlink) -> tuple[Link, ...]:
    """Every interface of this host with its addresses, in the kernel's order."""

    async def read(ip: Any) -> tuple[list[Any], list[Any], list[Any]]:
        with failing("read the network interfaces"):
            return (
                await rtnetlink.links(ip),
                await rtnetlink.addresses(ip),
                await rtnetlink.addresses(ip, family=AF_INET6),
            )

    links, addresses, addresses6 = await netlink.call(read)
    held: dict[int, list[Address[IPv4Address]]] = {}
    held6: dict[int, list[Address[IPv6Address]]] = {}
    for message in addresses:
        held.setdefault(message["index"], []).append(_address(message, IPv4Address))
    for message in addresses6:
        held6.setdefault(message["index"], []).append(_address(message, IPv6Address))
    return tuple(
        Link(
            name=message.get_attr("IFLA_IFNAME"),
            index=message["index"],
            mtu=message.get_attr("IFLA_MTU") or 0,
            addresses=tuple(held.get(message["index"], ())),
            loopback=bool(message["flags"] & rtnetlink.IFF_LOOPBACK),
            ipv6=tuple(held6.get(message["index"], ())),
        )
        for message in links
    )


async def local_addresses(netlink: Netlink) -> tuple[IPv4Address | IPv6Address, ...]:
    """Every address of this host, loopback included, each once, IPv4 first and in ascending order.

    Without IPv6 link-local ones: each is of one link only, and another host may have the same.
    """

    async def read(ip: Any) -> list[Any]:
        with failing("read this host's addresses"):
            return [*await rtnetlink.addresses(ip, family=AF_INET), *await rtnetlink.addresses(ip, family=AF_INET6)]

    found = {ip_address(_text(message)) for message in await netlink.call(read)}
    mine = (address for address in found if address.version == 4 or not address.is_link_local)
    return tuple(sorted(mine, key=lambda address: (address.version, int(address))))


async def connected(netlink: Netlink, networks: Sequence[Prefix]) -> list[tuple[str, Prefix]]:
    """Networks on links of this host that are shares of `networks`, each with its interface; overlays' devices apart.

    cni0 is on such a link. What leads there must not be led elsewhere, or this host loses its own pods.
    """

    async def read(ip: Any) -> tuple[dict[int, str], list[Any]]:
        with failing("read this host's addresses"):
            families = [AF_INET if version == 4 else AF_INET6 for version in sorted({it.version for it in networks})]
            found = [it for family in families for it in await rtnetlink.addresses(ip, family=family)]
            shares = [it for it in found if it["prefixlen"] < WIDTH[4 if it["family"] == AF_INET else 6]]
            near = [it for it in shares if any(network.contains(_on_link(it)) for network in networks)]
            names = {it["index"]: it.get_attr("IFLA_IFNAME") for it in await rtnetlink.links(ip)} if near else {}
        return names, near

    names, near = await netlink.call(read)
    held = ((names.get(it["index"], ""), _on_link(it)) for it in near)
    return [(name, prefix) for name, prefix in held if name and not mark.overlays(name)]


def _on_link(message: Any) -> Prefix:
    return Prefix.parse(f"{message.get_attr('IFA_ADDRESS') or _text(message)}/{message['prefixlen']}", mask=True)


def _text(message: Any) -> str:
    """The address; on a point-to-point link IFA_ADDRESS is the other end's and IFA_LOCAL ours."""
    return str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))


async def underlay_problem(netlink: Netlink, endpoint: Endpoint) -> str | None:
    """Why no datagram can leave by the endpoint's interface now, as far as the interface itself tells."""

    async def read(ip: Any) -> tuple[Any, list[Any]]:
        with failing(f"look at {endpoint.interface}"):
            link = await rtnetlink.link(ip, index=endpoint.index)
            link = link or await rtnetlink.link(ip, ifname=endpoint.interface)  # it may have been made anew
            return link, [] if link is None else await rtnetlink.addresses(ip)

    link, addresses = await netlink.call(read)
    if link is None:
        return f"interface {endpoint.interface} is gone"
    if not link["flags"] & rtnetlink.IFF_UP:
        return f"interface {endpoint.interface} is down: set it up again (ip link set {endpoint.interface} up)"
    if all(IPv4Address(_text(message)) != endpoint.address for message in addresses):
        return f"interface {endpoint.interface} has lost the address {endpoint.address}"
    return None


def _address(message: Any, kind: type[IP]) -> Address[IP]:
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    return Address(
        kind(_text(message)),
        dynamic=not flags & IFA_F_PERMANENT,
        temporary=bool(flags & IFA_F_TEMPORARY),
        deprecated=bool(flags & (IFA_F_DEPRECATED | IFA_F_DADFAILED)),
    )


async def _ways(ip: Any, settings: Settings, links: tuple[Link, ...]) -> Ways:
    if settings.iface_can_reach:
        return await _reach(ip, settings.iface_can_reach)
    if explicit(settings) or settings.public_ip:
        return Ways()
    with failing("read the routing table"):
        devices = [route.device for route in rtnetlink.main_routes_to(DEFAULT) if route.device != "*"]
    return Ways(default=next((link.index for link in links if devices and link.name == devices[0]), None))


async def _reach(ip: Any, target: IPv4Address) -> Ways:
    try:
        route = (await ip.route("get", dst=str(target)))[0]
    except NetlinkError as error:
        return Ways(reach_error=os.strerror(error.code))
    source = route.get_attr("RTA_PREFSRC")
    return Ways(reach=route.get_attr("RTA_OIF"), reach_source=IPv4Address(source) if source else None)
