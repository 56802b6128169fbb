"""The link flannel0: is it there, is it ours, and is everything on it as it should be.

Owns the device's mark, addresses, MTU, settings and routes, and touches nothing else. Must not know the TUN's fd
(`dataplane.tun`), peers, or who asks.

Theory of operation: flannel0 is ours if it is a TUN whose alias begins with our name. What it should look like is an
`Overlay`; what it looks like is read in one go; `plan` (pure, in `overlay_plan`) says what differs, each difference
with its cure. `configure` cures all, `ensure` cures what has gone missing, `problems` only tells. Where nothing differs
nothing is written, so taking over a device from the daemon before us disturbs no connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import Any

from udpbackend.errors import HostError
from udpbackend.host import rtnetlink
from udpbackend.host.mark import MARK
from udpbackend.host.netlink import Netlink, failing
from udpbackend.host.overlay_plan import Held, Kind, Overlay, Route, Seen, Step, plan
from udpbackend.model import Prefix

NAME = "flannel0"

FAMILIES = (AF_INET, AF_INET6)


class Presence(Enum):
    """What stands under our name."""

    ABSENT = "absent"
    OURS = "ours"
    IN_USE = "in use"
    """Ours, and a program holds queues of it."""
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class LinkState:
    """What `inspect` found."""

    presence: Presence
    why: str = ""
    """For FOREIGN: what shows that it is not ours."""
    index: int = 0
    mtu: int = 0
    up: bool = False
    queues: int = 0
    """How many queues programs hold open, our own process included."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What `ensure` did, in words."""

    done: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """What is wrong still, each with its reason."""
    gone: bool = False
    """The device was deleted; a new one must be opened and configured."""


class OverlayLink:
    """The device of the overlay; at most one per network namespace."""

    def __init__(self, netlink: Netlink, name: str = NAME) -> None:
        self.name = name
        self._netlink = netlink
        self._index = 0
        self._overlay: Overlay | None = None

    async def inspect(self) -> LinkState:
        """What stands under the name now; changes nothing."""
        return await self._netlink.call(self._inspect)

    async def configure(self, overlay: Overlay) -> tuple[str, ...]:
        """Makes the device, whose queue the caller holds open, what `overlay` says; tells what had to change.

        Raises HostError before any change if a network's route is taken by another device, or IPv6 is wanted where
        the administrator has switched it off.
        """
        return await self._netlink.call(lambda ip: self._configure(ip, overlay))

    async def problems(self) -> tuple[str, ...]:
        """What is not as configured; changes nothing."""
        return (await self._netlink.call(lambda ip: self._look(ip, repair=False))).left

    async def ensure(self) -> Repair:
        """Puts back what is missing. A link set down by the administrator stays down and is reported."""
        return await self._netlink.call(lambda ip: self._look(ip, repair=True))

    async def remove(self) -> bool:
        """Deletes our device with its addresses and routes, in use or not; False if there was none of ours."""
        return await self._netlink.call(self._remove)

    async def drops(self) -> dict[str, int]:
        """Packets that the kernel dropped at the device, to us and from us; nothing where there is no device."""
        return await self._netlink.call(self._drops)

    async def _drops(self, ip: Any) -> dict[str, int]:
        with failing(f"look at {self.name}"):
            link = await rtnetlink.link(ip, ifname=self.name)
        if link is None:
            return {}
        counted = link.get_attr("IFLA_STATS64")
        return {"flannel0_tx_dropped": counted["tx_dropped"], "flannel0_rx_dropped": counted["rx_dropped"]}

    async def _inspect(self, ip: Any) -> LinkState:
        with failing(f"look at {self.name}"):
            link = await rtnetlink.link(ip, ifname=self.name)
        return _state(self.name, link)

    async def _configure(self, ip: Any, overlay: Overlay) -> tuple[str, ...]:
        with failing(f"look at {self.name}"):
            link = await rtnetlink.link(ip, ifname=self.name)
            state = _state(self.name, link)
            if _kind(link) != "tun":
                raise HostError(f"cannot configure {self.name}: {state.why or 'there is no such device'}")
            seen = await _read(ip, link)
        steps = tuple(plan(self.name, seen, overlay))
        for step in steps:
            if step.cure is None:
                raise HostError(f"{step.problem}: {step.advice}")
        for network in overlay.networks:
            await self._refuse_taken_route(ip, network)
        self._index, self._overlay = state.index, overlay
        for step in steps:
            await self._cure(ip, step)
        return tuple(step.problem for step in steps)

    async def _look(self, ip: Any, *, repair: bool) -> Repair:
        overlay = self._overlay
        if overlay is None:
            raise HostError(f"{self.name} has not been configured yet")
        with failing(f"look at {self.name}"):
            link = await rtnetlink.link(ip, index=self._index)
            if link is None:
                return Repair(left=(f"{self.name} was deleted",), gone=True)
            seen = await _read(ip, link)
        done, left = [], []
        for step in plan(self.name, seen, overlay):
            if step.kind is Kind.ADMIN:
                left.append(f"{step.problem}: {step.advice}")
            elif step.kind is Kind.TIDY or (step.kind is Kind.ROUTE and not seen.up):
                continue
            elif repair:
                try:
                    await self._cure(ip, step)
                    done.append(step.problem)
                except HostError as error:
                    left.append(str(error) if step.problem in str(error) else f"{step.problem}: {error}")
            else:
                left.append(step.problem)
        return Repair(tuple(done), tuple(left))

    async def _cure(self, ip: Any, step: Step) -> None:
        if step.destination is not None:
            await self._refuse_taken_route(ip, step.destination)
        if step.cure is not None:
            with failing(f"mend that {step.problem}"):
                await step.cure(ip, self._index)

    async def _remove(self, ip: Any) -> bool:
        state = await self._inspect(ip)
        if state.presence is Presence.ABSENT:
            return False
        if state.presence is Presence.FOREIGN:
            raise HostError(f"{self.name} is not removed: {state.why}")
        with failing(f"remove {self.name}"):
            await ip.link("del", index=state.index)
        return True

    async def _refuse_taken_route(self, ip: Any, network: Prefix) -> None:
        """Another device's route to the same network is someone's traffic, at whatever metric: ours would take it."""
        key = "Network" if network.version == 4 else "IPv6Network"
        with failing("read the routing table"):
            if network.version == 4:
                routes = list(rtnetlink.main_routes_to(network))
            else:
                routes = await rtnetlink.main_routes6_to(ip, network)
        taken = next((route for route in routes if route.device != self.name), None)
        if taken:
            raise HostError(
                f"the route {taken} is there already and {self.name} needs the same network: "
                f"remove it or choose another {key}"
            )


async def _read(ip: Any, link: Any) -> Seen:
    index = link["index"]
    inet6 = ("af_spec", "AF_INET6")
    addresses = [message for family in FAMILIES for message in await rtnetlink.addresses(ip, index, family)]
    routes = [message for family in FAMILIES for message in await rtnetlink.main_routes_of(ip, index, family)]
    return Seen(
        alias=link.get_attr("IFLA_IFALIAS") or "",
        mtu=link.get_attr("IFLA_MTU") or 0,
        up=bool(link["flags"] & rtnetlink.IFF_UP),
        accept_local=bool(link.get(("af_spec", "AF_INET", "accept_local"))),
        ipv6_address_mode=link.get((*inet6, "IFLA_INET6_ADDR_GEN_MODE")),
        ipv6_off=bool(link.get((*inet6, "IFLA_INET6_CONF", "disable_ipv6"))),
        addresses=tuple(_held(message) for message in addresses),
        routes=tuple(_route(message) for message in routes),
        queue=link.get_attr("IFLA_TXQLEN") or 0,
    )


def _held(message: Any) -> Held:
    local = ip_address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
    return Held(local, ip_address(message.get_attr("IFA_ADDRESS") or local), message["prefixlen"])


def _route(message: Any) -> Route:
    version = 4 if message["family"] == AF_INET else 6
    base = int(ip_address(message.get_attr("RTA_DST") or 0))  # a default route has none
    metric = message.get_attr("RTA_PRIORITY") or 0
    return Route(Prefix(base, message["dst_len"], version), message["proto"], metric, message["type"])


def _kind(link: Any) -> str:
    return (link and link.get(("linkinfo", "kind"))) or ""


def _state(name: str, link: Any) -> LinkState:
    if link is None:
        return LinkState(Presence.ABSENT)
    kind, alias = _kind(link), link.get_attr("IFLA_IFALIAS") or ""
    queues = link.get(("linkinfo", "data", "IFLA_TUN_NUM_QUEUES")) or 0
    presence, why = Presence.IN_USE if queues else Presence.OURS, ""
    if kind != "tun":
        presence, why = Presence.FOREIGN, f"{name} is a {kind or 'hardware'} device, expected a TUN made by udp-backend"
    elif not alias.startswith(MARK):
        why = f"{name} was made by another program: its alias is {alias!r}, expected one that begins with {MARK!r}"
        presence = Presence.FOREIGN
    up = bool(link["flags"] & rtnetlink.IFF_UP)
    return LinkState(presence, why, link["index"], link.get_attr("IFLA_MTU") or 0, up, queues)
