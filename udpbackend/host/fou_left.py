"""What a kernel dataplane has left in the host: tunnel devices of ours, their FOU ports, the rules that guard them.

Owns the finding of these, and their end, for whoever needs flannel0 or the UDP port next. Must not know backends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

from udpbackend.host import fou, fou_guard, fou_link, rtnetlink
from udpbackend.host.fou import FouPort
from udpbackend.host.netlink import Netlink, failing


class Left(NamedTuple):
    """What was found; false if that is nothing."""

    devices: tuple[str, ...] = ()
    ports: tuple[FouPort, ...] = ()
    guards: tuple[str, ...] = ()
    """Tables of rules: they would keep peers out that came later."""

    def __bool__(self) -> bool:
        return bool(self.devices or self.ports or self.guards)

    @property
    def in_the_way(self) -> bool:
        """Whether flannel0 or the port is not free."""
        return bool(self.devices or self.ports)


NOTHING = Left()


async def find(ip: Any, name: str, port: FouPort) -> Left:
    """What stands in the way of a TUN of this name and a socket at this port. Changes nothing."""
    devices, owned, others = [], set(), set()
    with failing("look at the tunnel devices"):
        for kind in fou_link.PREFIXES:
            for link in await rtnetlink.links_of_kind(ip, kind):
                if (own := fou_link.sends_to(link)) is None:
                    continue
                if (called := link.get_attr("IFLA_IFNAME")) in (name, name + fou_link.SUFFIX6):
                    devices.append(called)
                    owned.add(own)
                else:  # another network's: what it has is left to it
                    others.add(own)
    with failing("read the FOU ports"):
        there = fou.ports()
    ports = tuple(it for it in there if it in owned or (it == port and it not in others))
    guards = () if port in others else fou_guard.leftovers(port.port)
    return Left(tuple(devices), ports, guards)


async def remove(netlink: Netlink, left: Left) -> tuple[str, ...]:
    """Takes it away, and the rules that guarded it; in words."""
    if not left:
        return ()
    words: list[str] = []
    for name in left.devices:
        words += await netlink.call(partial(fou_link.remove, name=name))
    words += await netlink.call(partial(_remove_ports, ports=left.ports))
    for port in {it.port for it in left.ports} | {int(it.rpartition("-")[2]) for it in left.guards}:
        words += await asyncio.to_thread(fou_guard.remove, port)
    return tuple(words)


async def _remove_ports(_ip: Any, ports: Iterable[FouPort]) -> list[str]:
    with failing("remove FOU ports"):
        return [f"the {it}" for it in ports if fou.delete(it)]
