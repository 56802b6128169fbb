"""What flannel0 should look like, what it looks like, and the steps from one to the other.

Owns the comparison, a pure function from two values to an ordered list of steps, and the request that cures each
difference. Must not know when steps are taken or left out: that is `flannel0`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from udpbackend.host import rtnetlink
from udpbackend.host.mark import ALIAS, MARK
from udpbackend.model import WIDTH, Prefix

METRIC = {4: 0, 6: 1024}
"""What the kernel gives a route for which none is asked."""

KERNELS_QUEUE, QUEUE = 500, 2000
"""Packets that wait in a TUN while nobody reads it: of a new one (Linux, drivers/net/tun.c), and what ours begins with.
500 are 10 ms of 50,000 a second, and on a busy host nobody reads for longer. It costs no latency that could be
measured: what is sent faster than the daemons move it waits in the receiver's socket, whose buffer is larger."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """What flannel0 should be."""

    address: IPv4Address
    """The base address of this node's subnet; the device carries it as a /32, as flannel's does."""
    network: Prefix
    """The whole overlay network: its route leads to the device."""
    mtu: int
    address6: IPv6Address | None = None
    """Likewise of its IPv6 subnet, as a /128; None where this node carries no IPv6."""
    network6: Prefix | None = None
    """With `address6`: the IPv6 half of the network."""

    @property
    def addresses(self) -> tuple[Held, ...]:
        """What the device should carry."""
        return tuple(Held(it, it, WIDTH[it.version]) for it in (self.address, self.address6) if it is not None)

    @property
    def networks(self) -> tuple[Prefix, ...]:
        """What should lead to the device."""
        return (self.network,) if self.network6 is None else (self.network, self.network6)


@dataclass(frozen=True, slots=True)
class Held:
    """An address on the device."""

    local: IPv4Address | IPv6Address
    peer: IPv4Address | IPv6Address
    bits: int


@dataclass(frozen=True, slots=True)
class Route:
    """A route of table main through the device."""

    destination: Prefix
    protocol: int
    metric: int
    type: int = rtnetlink.TYPE_UNICAST


@dataclass(frozen=True, slots=True)
class Seen:
    """What the device is now."""

    alias: str
    mtu: int
    up: bool
    accept_local: bool
    ipv6_address_mode: int | None
    """IFLA_INET6_ADDR_GEN_MODE; None where the device has no IPv6."""
    ipv6_off: bool = False
    """The device has IPv6, but `disable_ipv6` is set."""
    addresses: tuple[Held, ...] = ()
    routes: tuple[Route, ...] = ()
    queue: int = 0
    """How many packets may wait in it."""


class Kind(Enum):
    """When a difference may be cured."""

    SETTING = auto()
    """At any time."""
    ROUTE = auto()
    """While the link is up: the kernel takes none otherwise, and flushes them all when it goes down."""
    ADMIN = auto()
    """At the start only, if at all: later it is the administrator's choice."""
    TIDY = auto()
    """At the start only: what someone else has added since is not ours to remove."""


@dataclass(frozen=True, slots=True)
class Step:
    """One difference and its cure."""

    kind: Kind
    problem: str
    cure: Callable[[Any, int], Awaitable[None]] | None
    """Takes the AsyncIPRoute and the device's index; None for what is not ours to cure."""
    advice: str = ""
    """For ADMIN: what the administrator can do."""
    destination: Prefix | None = None
    """For ROUTE: where it leads."""


def plan(name: str, seen: Seen, wanted: Overlay) -> Iterator[Step]:
    """Everything that differs, in the order in which it must be cured."""
    yield from _settings(name, seen, wanted)
    if wanted.address6 is not None and seen.ipv6_off:
        advice = f"sysctl -w net.ipv6.conf.{name}.disable_ipv6=0 switches it on"
        yield Step(Kind.ADMIN, f"IPv6 is switched off on {name}", None, advice)
        wanted = replace(wanted, address6=None, network6=None)  # the kernel would refuse both
    yield from _addresses(name, seen, wanted)
    if not seen.up:
        advice = f"ip link set {name} up brings it back, its routes follow"
        yield Step(Kind.ADMIN, f"{name} is down", _raise_link, advice)
    yield from _routes(name, seen, wanted)


def _settings(name: str, seen: Seen, wanted: Overlay) -> Iterator[Step]:
    def change(problem: str, attribute: tuple[str, Any]) -> Step:
        return Step(Kind.SETTING, problem, lambda ip, index: rtnetlink.change_link(ip, index, attribute))

    if not seen.alias.startswith(MARK):
        yield change(f"{name} does not have our alias", ("IFLA_IFALIAS", ALIAS))
        if seen.queue == KERNELS_QUEUE:  # of a new device only: any later length is the administrator's choice
            yield change(f"the queue of {name} holds {KERNELS_QUEUE} packets, not {QUEUE}", ("IFLA_TXQLEN", QUEUE))
    if not seen.accept_local:
        # Without it the kernel discards our ICMP errors as martians: their source is flannel0's own address.
        yield change(f"accept_local of {name} is off", rtnetlink.accept_local())
    if seen.ipv6_address_mode not in (None, rtnetlink.ADDR_GEN_MODE_NONE):
        # A link-local address would send router solicitations into a tunnel that has nobody to answer them.
        yield change(f"{name} makes itself an IPv6 link-local address", rtnetlink.no_ipv6_address())
    if seen.mtu != wanted.mtu:  # last: below 1280 it takes IPv6 off the device, and the setting above would be refused
        yield change(f"{name} has the MTU {seen.mtu} instead of {wanted.mtu}", ("IFLA_MTU", wanted.mtu))


def _addresses(name: str, seen: Seen, wanted: Overlay) -> Iterator[Step]:
    for right in wanted.addresses:
        if right not in seen.addresses:
            problem = f"{name} lacks its address {right.local}/{right.bits}"
            yield Step(Kind.SETTING, problem, partial(_add_address, right))
    for held in seen.addresses:
        # Only after ours is there: with its last address gone the kernel would drop the device's routes too.
        if held not in wanted.addresses:
            problem = f"{name} has the address {held.local}/{held.bits} of an earlier configuration"
            yield Step(Kind.TIDY, problem, partial(_remove_address, held))


def _routes(name: str, seen: Seen, wanted: Overlay) -> Iterator[Step]:
    for route in seen.routes:
        if route.protocol == rtnetlink.PROTO_BOOT and route.destination not in wanted.networks:
            problem = f"the route {route.destination} dev {name} is of an earlier configuration"
            yield Step(Kind.TIDY, problem, partial(_remove_route, route))
    for network in wanted.networks:
        if not any(_leads(route, network) for route in seen.routes):
            problem = f"the route {network} dev {name} is missing"
            yield Step(Kind.ROUTE, problem, partial(_add_route, network), destination=network)


def _leads(route: Route, network: Prefix) -> bool:
    """Whether it does what ours would do, whoever has made it; the kernel's own goes with the address it belongs to."""
    return (
        route.destination == network
        and route.metric == METRIC[network.version]
        and route.type == rtnetlink.TYPE_UNICAST
        and route.protocol != rtnetlink.PROTO_KERNEL
    )


async def _raise_link(ip: Any, index: int) -> None:
    await rtnetlink.change_link(ip, index, up=True)


async def _add_address(held: Held, ip: Any, index: int) -> None:
    more = {"flags": rtnetlink.IFA_F_NODAD} if held.local.version == 6 else {}
    await ip.addr("add", index=index, local=str(held.local), address=str(held.peer), prefixlen=held.bits, **more)


async def _remove_address(held: Held, ip: Any, index: int) -> None:
    await ip.addr("delete", index=index, local=str(held.local), address=str(held.peer), prefixlen=held.bits)


async def _add_route(network: Prefix, ip: Any, index: int) -> None:
    await ip.route(
        "add",
        dst=str(network),
        oif=index,
        table=rtnetlink.TABLE_MAIN,
        scope=rtnetlink.SCOPE_UNIVERSE,  # flannel's; a route made by hand would get scope link
        proto=rtnetlink.PROTO_BOOT,
        type=rtnetlink.TYPE_UNICAST,
    )


async def _remove_route(route: Route, ip: Any, index: int) -> None:
    await ip.route(
        "delete",
        dst=str(route.destination),
        oif=index,
        table=rtnetlink.TABLE_MAIN,
        proto=route.protocol,
        priority=route.metric,
    )
