"""Routes and rules that an overlay has left.

Owns what counts as one. Must not know devices but by index, nor who runs.

- A route of our protocol number is ours, whatever network it leads into; blackhole routes are `blackhole`'s.
- A route as flannel's host-gw makes it (by a gateway, to a subnet of this node's network, of the protocol that `ip`
  gives too) may as well have been made by hand: it is shown and left alone.
- Rules are known by flannel's names for chains, tables and comments, which ours bear too (`firewall`).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Collection, Sequence
from functools import partial
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_GETROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from udpbackend.host import firewall, fou_guard, rtnetlink
from udpbackend.host.blackhole import Blackhole
from udpbackend.host.bulk import Bulk
from udpbackend.host.entries import Route, dump_routes, read_route
from udpbackend.host.leftovers_item import Leftover
from udpbackend.host.netlink import Netlink, failing
from udpbackend.host.reconcile import delete
from udpbackend.model import Prefix

FAMILIES = {4: AF_INET, 6: AF_INET6}
SHOWN = 5
"""So many of a long list of routes are named."""


async def routes(
    netlink: Netlink, networks: Sequence[Prefix], subnets: Sequence[Prefix], devices: Collection[int]
) -> list[Leftover]:
    """`networks`, `subnets`: this node's, as far as they are known; `devices`: whose routes go or stay with them."""
    ours = [it for it in await netlink.call(_ours) if it.link not in devices]
    flannels = await netlink.call(partial(_flannels, networks=networks, subnets=subnets, devices=devices))
    blackhole = Blackhole(netlink, (), previous=subnets)
    found = []
    if ours:
        work = partial(netlink.call, partial(_delete, routes=ours))
        found.append(Leftover(_some(list(map(str, ours))), f"of protocol {rtnetlink.PROTO_OURS}, which is ours", work))
    if blackholes := await blackhole.leftovers():
        what = tuple(f"route {words}" for words in blackholes)
        found.append(Leftover(what, "it led unused addresses of this node nowhere", blackhole.remove))
    if flannels:
        inside = ", ".join(map(str, networks))
        words = [f"route {destination} via {gateway}" for destination, gateway in flannels]
        first = flannels[0][0]
        alone = f"flannel's host-gw or an administrator has made it: ip route delete {first}"
        found.append(Leftover(_some(words), f"it leads into {inside}", _nothing, alone))
    return found


async def rules() -> list[Leftover]:
    """Chains, tables and rules of iptables and nftables."""
    found = await firewall.leftovers()
    items = [Leftover(found, "udp-backend and flannel name theirs so", firewall.remove)] if found else []
    if tables := await asyncio.to_thread(fou_guard.leftovers):
        what = tuple(f"nftables table {table}" for table in tables)
        why = "udp-backend lets only peers in by it, where the kernel is its dataplane"
        items.append(Leftover(what, why, partial(asyncio.to_thread, fou_guard.remove), shared=False))
    return items


def is_flannels(destination: Prefix, networks: Sequence[Prefix], subnets: Sequence[Prefix]) -> bool:
    """Whether it is another node's share of a network, by its length and this node's own."""
    lengths = {(subnet.version, subnet.bits) for subnet in subnets}
    return (
        destination not in subnets
        and (destination.version, destination.bits) in lengths
        and any(network.contains(destination) for network in networks)
    )


def _some(words: list[str]) -> tuple[str, ...]:
    more = len(words) - SHOWN
    return (*words[:SHOWN], f"{more} more such routes") if more > 1 else tuple(words)


async def _ours(_ip: Any) -> list[Route]:
    with failing("read our routes"), Bulk() as bulk:
        found = [read_route(body) for version in FAMILIES for body in bulk.dump(dump_routes(version))]
    return [route for route in found if route is not None]


async def _delete(_ip: Any, routes: Sequence[Route]) -> None:
    with failing("remove routes"), Bulk() as bulk:
        delete(bulk, routes)


async def _flannels(
    ip: Any, networks: Sequence[Prefix], subnets: Sequence[Prefix], devices: Collection[int]
) -> list[tuple[Prefix, str]]:
    """Destination and gateway."""
    with failing("read the routing tables"):
        messages = [it for version in sorted({one.version for one in networks}) for it in await _by_hand(ip, version)]
    return [
        (destination, gateway)
        for destination, gateway, device in map(_read, messages)
        if gateway and device not in devices and is_flannels(destination, networks, subnets)
    ]


async def _by_hand(ip: Any, version: int) -> list[Any]:
    """The kernel filters."""
    message = rtmsg()
    message["family"], message["table"] = FAMILIES[version], rtnetlink.TABLE_MAIN
    message["proto"], message["type"] = rtnetlink.PROTO_BOOT, rtnetlink.TYPE_UNICAST
    try:
        return [it for it in await rtnetlink.dump(ip, message, RTM_GETROUTE) if it["family"] == FAMILIES[version]]
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return []  # the kernel makes the table with its first route
        raise


def _read(message: Any) -> tuple[Prefix, str, int]:
    version = 4 if message["family"] == AF_INET else 6
    base = int(ip_address(message.get_attr("RTA_DST") or 0))  # a default route has none
    destination = Prefix(base, message["dst_len"], version)
    return destination, str(message.get_attr("RTA_GATEWAY") or ""), message.get_attr("RTA_OIF") or 0


async def _nothing() -> None:
    """What is left alone."""
