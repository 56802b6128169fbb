"""Blackhole routes for this node's own subnets: what is meant for a pod that is not there ends here.

Owns routes of type blackhole in table main that bear our protocol number, whatever subnet they are for, and those
that flannel has made for the same subnets. Must not know why they are wanted.

Theory of operation: while the pods' bridge is there, its own route leads to the same prefix and has to win, so ours has
the worst metric there is. (flannel's has the best one: made before the bridge, it keeps the node's pods off the
network; made after it, it is refused.) Without a bridge, or with pods that have a route each, packets for an address
that no pod has would follow the network's route. The kernel filters its answer by type and table, so a look costs
little however many routes there are.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_GETROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from udpbackend.errors import HostError
from udpbackend.host import rtnetlink
from udpbackend.host.netlink import Netlink, failing
from udpbackend.host.overlay_plan import METRIC, Route
from udpbackend.model import Prefix

TYPE_BLACKHOLE = 6
PROTOCOL = rtnetlink.PROTO_OURS
WORST_METRIC = 0xFFFFFFFF

LOOPBACK = 1
"""The index of `lo` in every namespace: the device of IPv6's blackhole routes; IPv4's have none."""
FAMILIES = {4: AF_INET, 6: AF_INET6}


class Blackhole:
    """The routes for some subnets; for none where the administrator wants none."""

    def __init__(self, netlink: Netlink, subnets: Iterable[Prefix], previous: Iterable[Prefix] = ()) -> None:
        """`previous`: what this node's subnets were; a route that flannel has left there goes as well."""
        self._netlink = netlink
        self._subnets = tuple(subnets)
        self._flannels = {*self._subnets, *previous}
        self._added: list[Route] = []

    async def ensure(self) -> tuple[str, ...]:
        """Adds the routes that are missing and removes those of other subnets; what it did, in words."""
        return await self._netlink.call(self._ensure)

    async def leftovers(self) -> tuple[str, ...]:
        """What `remove` would remove, in words; changes nothing."""
        found = await self._netlink.call(self._found)
        return tuple(map(_words, found))

    async def remove(self) -> tuple[str, ...]:
        """Removes every such route; which they were, in words."""
        return await self._netlink.call(self._remove)

    async def undo(self) -> None:
        """For a start that has failed: removes what this object has added."""
        await self._netlink.call(self._undo)

    async def _ensure(self, ip: Any) -> tuple[str, ...]:
        wanted = [_ours(subnet) for subnet in self._subnets]
        found = await self._found(ip)
        done = []
        for route in wanted:
            if route not in found:
                with failing(f"add the route {_words(route)}"):
                    await _change(ip, "add", route)
                self._added.append(route)
                done.append(f"added the route {_words(route)}")
        stale = [route for route in found if route not in wanted]
        gone = [route for route in stale if await _delete(ip, route)]  # only now: at no moment is there none
        return (*done, *(f"removed the route {_words(route)}" for route in gone))

    async def _remove(self, ip: Any) -> tuple[str, ...]:
        return tuple([_words(route) for route in await self._found(ip) if await _delete(ip, route)])

    async def _undo(self, ip: Any) -> None:
        while self._added:
            await _delete(ip, self._added.pop())

    async def _found(self, ip: Any) -> Sequence[Route]:
        with failing("read the blackhole routes"):
            routes = [route for version in FAMILIES for route in await _blackholes(ip, version)]
        flannels = [_flannels(subnet) for subnet in self._flannels]
        return [route for route in routes if route.protocol == PROTOCOL or route in flannels]


def _ours(subnet: Prefix) -> Route:
    return Route(subnet, PROTOCOL, WORST_METRIC, TYPE_BLACKHOLE)


def _flannels(subnet: Prefix) -> Route:
    """What `ip route add blackhole SUBNET` makes too."""
    return Route(subnet, rtnetlink.PROTO_BOOT, METRIC[subnet.version], TYPE_BLACKHOLE)


async def _blackholes(ip: Any, version: int) -> list[Route]:
    message = rtmsg()
    message["family"], message["table"], message["type"] = FAMILIES[version], rtnetlink.TABLE_MAIN, TYPE_BLACKHOLE
    try:
        found = await rtnetlink.dump(ip, message, RTM_GETROUTE)
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return []  # the kernel makes the table with its first route
        raise
    return [_route(one, version) for one in found if one["family"] == FAMILIES[version]]


def _route(message: Any, version: int) -> Route:
    base = int(ip_address(message.get_attr("RTA_DST") or 0))
    prefix = Prefix(base, message["dst_len"], version)
    return Route(prefix, message["proto"], message.get_attr("RTA_PRIORITY") or 0, message["type"])


async def _delete(ip: Any, route: Route) -> bool:
    """False if somebody else was faster."""
    try:
        with failing(f"remove the route {_words(route)}"):
            await _change(ip, "delete", route)
    except HostError as error:
        if isinstance(error.__cause__, NetlinkError) and error.__cause__.code == errno.ESRCH:
            return False
        raise
    return True


async def _change(ip: Any, command: str, route: Route) -> None:
    more = {"oif": LOOPBACK} if route.destination.version == 6 else {}  # or another's of this metric would go
    await ip.route(
        command,
        dst=str(route.destination),
        family=FAMILIES[route.destination.version],
        table=rtnetlink.TABLE_MAIN,
        proto=route.protocol,
        priority=route.metric,
        scope=rtnetlink.SCOPE_UNIVERSE,
        type=TYPE_BLACKHOLE,
        **more,
    )


def _words(route: Route) -> str:
    return f"blackhole {route.destination} metric {route.metric}"
