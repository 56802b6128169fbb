"""Looking at this host while the daemon runs: whenever links, addresses, routes or rules change, and once in a minute.

Owns when is looked, and what is said of it: every finding once in the log. Must not know what a finding is about. A
look costs the same whatever the number of links: it reads the addresses, one link and the routes of others.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Any

from udpbackend.errors import HostError
from udpbackend.findings import address, forwarding, mtu, routes
from udpbackend.findings.finding import Finding
from udpbackend.findings.here import Here
from udpbackend.host import mark, rtnetlink, sysctl
from udpbackend.host.addresses import local_addresses
from udpbackend.host.netlink import Netlink, failing
from udpbackend.host.route_table import TableRoute, read_main

log = logging.getLogger(__name__)

EVERY_S = 60.0
PACE_S = 1.0
"""Between two looks at least: on a host whose links change all the time looking must not become all we do."""


class HostWatch:
    """`run` looks until cancelled; `problems` and `sound` say what the last look has found."""

    def __init__(
        self, netlink: Netlink, here: Here, peers: Callable[[], Iterable[IPv4Address]], *, ipv6: bool = False
    ) -> None:
        """`peers`: the other nodes' public IPs; asked for only where some route may catch them."""
        self._netlink = netlink
        self._here = here
        self._peers = peers
        self._ipv6 = ipv6
        self._found: tuple[Finding, ...] = ()
        self.sound = asyncio.Event()
        """Set while nothing is found by which all packets are lost."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, one clause each."""
        return tuple(it.clause for it in self._found)

    async def run(self) -> None:
        """Until cancelled."""
        changed = self._netlink.changes()
        while True:
            changed.clear()
            with suppress(HostError):  # the netlink thread, or what is asked, is wanted by others too, who say so
                self._note(await self._look())
            await asyncio.sleep(PACE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await changed.wait()

    async def _look(self) -> list[Finding]:
        here = self._here
        held = {it for it in await local_addresses(self._netlink) if isinstance(it, IPv4Address)}
        link, table = await self._netlink.call(self._read)
        names = _names(table)
        devices = [it for it in (mark.BRIDGE, here.overlay) if it and _exists(it)]
        return [
            *address.judge(here, held),
            *routes.into(here, table, names, self._peers()),
            *forwarding.look(devices, ipv6=self._ipv6),
            *routes.astray(here, table, names),
            *(mtu.judge(here, link.get_attr("IFLA_MTU")) if link else ()),
        ]

    async def _read(self, ip: Any) -> tuple[Any, list[TableRoute]]:
        with failing("look at this host's routes"):
            return await rtnetlink.link(ip, ifname=self._here.interface), read_main()

    def _note(self, found: list[Finding]) -> None:
        for finding in found:
            if finding not in self._found:
                log.warning("%s: %s: %s", finding.what, finding.evidence, finding.cure)
        for finding in self._found:
            if finding not in found:
                log.info("over: %s", finding.what)
        self._found = tuple(found)
        if any(it.severity == "down" for it in found):
            self.sound.clear()
        else:
            self.sound.set()


def _names(table: Iterable[TableRoute]) -> dict[int, str]:
    names = {}
    for index in {route.link for route in table}:
        with suppress(OSError):  # it has gone meanwhile, or there is none
            names[index] = socket.if_indextoname(index)
    return names


def _exists(device: str) -> bool:
    return sysctl.read(f"ipv4/conf/{device}/forwarding") is not None
