"""What our backends leave in the host: devices that bear our mark, and routes of our protocol number.

Owns the finding of both, whatever backend has made them: for a start with another backend than the last one, whose
routes would lead packets past it, and for `cleanup`. Must not know backends. Blackhole routes are `blackhole`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import Any

from udpbackend.host import fou, fou_guard, mark, rtnetlink
from udpbackend.host.bulk import Bulk
from udpbackend.host.entries import Route, dump_routes, read_route
from udpbackend.host.fou import FouPort
from udpbackend.host.fou_link import KINDS, sends_to
from udpbackend.host.netlink import Netlink, failing
from udpbackend.host.reconcile import delete
from udpbackend.model import Prefix


@dataclass(frozen=True, slots=True)
class Which:
    """What counts as left over."""

    networks: Sequence[Prefix] | None = None
    """Of which overlay networks; None: of any. Two daemons of one host have two networks."""
    keep: Collection[str] = ()
    """Devices in use, by name."""
    routes: bool = True
    """Whether routes count, whatever device they lead through."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is left over."""

    name: str
    index: int
    port: FouPort | None = None
    """The FOU port that belongs to it and goes with it, as do the rules that guard that."""


async def find_leftovers(netlink: Netlink, which: Which) -> tuple[str, ...]:
    """What `remove_leftovers` would remove, in words; changes nothing."""
    return _words(*await netlink.call(lambda ip: _find(ip, which)))


async def remove_leftovers(netlink: Netlink, which: Which) -> tuple[str, ...]:
    """Removes it; in words. Raises HostError where something of it stays."""

    async def work(ip: Any) -> tuple[tuple[str, ...], set[int]]:
        devices, routes = await _find(ip, which)
        with failing("remove routes"), Bulk() as bulk:
            delete(bulk, routes)
        for device in devices:
            with failing(f"remove {device.name}"):
                await ip.link("del", index=device.index)
            if device.port is not None:
                with failing(f"remove the {device.port}"):
                    fou.delete(device.port)
        return _words(devices, routes), {device.port.port for device in devices if device.port is not None}

    words, guarded = await netlink.call(work)
    rules = [it for port in guarded for it in await asyncio.to_thread(fou_guard.remove, port)]
    return (*words, *rules)


async def _find(ip: Any, which: Which) -> tuple[list[Device], list[Route]]:
    with failing("look for devices and routes of ours"):
        links = [link for link in await rtnetlink.links(ip) if _is_left(link, which)]
        devices = [
            Device(link.get_attr("IFLA_IFNAME"), link["index"], _port(link))
            for link in links
            if await _is_in(ip, link, which)
        ]
        if not which.routes:
            return devices, []
        with Bulk() as bulk:
            found = [read_route(body) for version in (4, 6) for body in bulk.dump(dump_routes(version))]
    return devices, [route for route in found if route is not None and _leads_in(route, which)]


def _port(link: Any) -> FouPort | None:
    """The FOU port that goes with a device: that of IPv6 shares the other's, which may stay."""
    return sends_to(link) if link.get(("linkinfo", "kind")) == KINDS[4] else None


def _is_left(link: Any, which: Which) -> bool:
    """Whether it is ours, and nobody uses it: a daemon holds the queues of a TUN."""
    return (
        mark.ours(link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_IFALIAS") or "")
        and not link.get(("linkinfo", "data", "IFLA_TUN_NUM_QUEUES"))
        and link.get_attr("IFLA_IFNAME") not in which.keep
    )


async def _is_in(ip: Any, link: Any, which: Which) -> bool:
    if which.networks is None:
        return True
    held = [it for family in (AF_INET, AF_INET6) for it in await rtnetlink.addresses(ip, link["index"], family)]
    found = [ip_address(it.get_attr("IFA_LOCAL") or it.get_attr("IFA_ADDRESS")) for it in held]
    return any(network.holds(address) for network in which.networks for address in found)


def _leads_in(route: Route, which: Which) -> bool:
    prefix = Prefix(int.from_bytes(route.base, "big"), route.bits, 4 if len(route.base) == 4 else 6)
    return which.networks is None or any(network.contains(prefix) for network in which.networks)


def _words(devices: Sequence[Device], routes: Sequence[Route]) -> tuple[str, ...]:
    of_devices = tuple(
        f"the device {device.name} with its addresses and routes" + (f", and the {device.port}" if device.port else "")
        for device in devices
    )
    indexes = {device.index for device in devices}
    return of_devices + tuple(f"the {route}" for route in routes if route.link not in indexes)
