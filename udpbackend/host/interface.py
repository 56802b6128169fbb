"""Which interface and address of this host the overlay uses, by flannel's rules.

Owns the choice, a pure function over plain data; `addresses` reads that data from the kernel. Must not know netlink or
the overlay: the caller leaves out its devices (`mark`), which outlive a restart and match many a pattern.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Generic, TypeVar

from udpbackend.errors import HostError
from udpbackend.model import Endpoint, can_be_a_hosts
from udpbackend.settings import Settings

logger = logging.getLogger(__name__)

IP = TypeVar("IP", IPv4Address, IPv6Address)

Choice = tuple["Link", IPv4Address]
Attempt = Callable[[], Choice]
"""Finds an interface and the address to use on it, or raises LookupError with the reason."""


@dataclass(frozen=True, slots=True)
class Address(Generic[IP]):
    """An address on a link."""

    ip: IP
    dynamic: bool = False
    temporary: bool = False
    """For IPv4 the kernel's mark of a secondary address."""
    deprecated: bool = False
    """Or a duplicate of another host's."""


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface."""

    name: str
    index: int
    mtu: int
    addresses: tuple[Address[IPv4Address], ...] = ()
    loopback: bool = False
    ipv6: tuple[Address[IPv6Address], ...] = ()

    def usable(self) -> list[IPv4Address]:
        """The addresses a peer could send to, best first: global, permanent, primary; deprecated ones not at all."""
        return _usable(self.addresses)

    def public_ipv6(self) -> IPv6Address | None:
        """The best IPv6 address of all that are valid beyond the link."""
        return next(iter(_usable(self.ipv6)), None)

    def __str__(self) -> str:
        return f"{self.name} [{' '.join(str(a.ip) for a in self.addresses)}]"


@dataclass(frozen=True, slots=True)
class Ways:
    """What the routing table says, as far as it was asked; an interface index, or why there is none."""

    default: int | None = None
    reach: int | None = None
    reach_source: IPv4Address | None = None
    reach_error: str = "no route"


def explicit(settings: Settings) -> bool:
    """Whether any of the interface flags was given."""
    return bool(settings.iface or settings.iface_regex or settings.iface_can_reach)


def choose(settings: Settings, links: Sequence[Link], ways: Ways) -> Endpoint:
    """The endpoint, or HostError with flannel's text, the value and the interfaces there are."""
    if not explicit(settings):
        try:
            link, address = _named(str(settings.public_ip), links) if settings.public_ip else _default(links, ways)
        except LookupError as miss:
            raise HostError(f"Failed to find any valid interface to use: {miss}; {_list(links)}") from None
        return _endpoint(settings, link, address)
    misses = []
    for value, attempt in _attempts(settings, links, ways):
        try:
            link, address = attempt()
        except LookupError as miss:
            logger.info("Could not find valid interface matching %s: %s", value, miss)
            misses.append(str(miss))
        else:
            return _endpoint(settings, link, address)
    raise HostError(
        "Failed to find interface to use that matches the interfaces and/or regexes provided: "
        f"{'; '.join(misses)}; {_list(links)}"
    )


def _attempts(settings: Settings, links: Sequence[Link], ways: Ways) -> Iterator[tuple[str, Attempt]]:
    """In flannel's order: every --iface, then every --iface-regex, then --iface-can-reach."""
    for name in settings.iface:
        yield name, partial(_named, name, links)
    for pattern in settings.iface_regex:
        yield pattern, partial(_matching, pattern, links)
    if settings.iface_can_reach:
        yield str(settings.iface_can_reach), partial(_reaching, settings.iface_can_reach, links, ways)


def _named(name: str, links: Sequence[Link]) -> Choice:
    try:
        address = ip_address(name)
    except ValueError:
        for link in links:
            if link.name == name:
                return link, _first(link)
        raise LookupError(f"error looking up interface {name}: no such network interface") from None
    for link in links:
        for held in link.addresses:
            if held.ip == address:
                return link, held.ip
    raise LookupError(f"error looking up interface {name}: no interface with given IP found")


def _matching(pattern: str, links: Sequence[Link]) -> Choice:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise LookupError(f"could not compile the IP address regex '{pattern}': {error}") from None
    for link in links:
        for address in link.usable():
            if regex.search(str(address)):
                return link, address
    for link in links:
        if regex.search(link.name):
            return link, _first(link)
    raise LookupError(f"Could not match pattern {pattern} to any of the available network interfaces")


def _reaching(target: IPv4Address, links: Sequence[Link], ways: Ways) -> Choice:
    link = next((link for link in links if link.index == ways.reach), None)
    if link is None:
        raise LookupError(
            f"failed to get ifcanreach based interface: couldn't lookup route to {target}: {ways.reach_error}"
        )
    if link.loopback and ways.reach_source:
        # The target is this very host: flannel takes `lo` and its huge MTU, we the interface that has the address.
        return _named(str(ways.reach_source), links)
    return link, ways.reach_source or _first(link)


def _default(links: Sequence[Link], ways: Ways) -> Choice:
    for link in links:
        if link.index == ways.default:
            return link, _first(link)
    raise LookupError("failed to get default interface: unable to find default route")


def _usable(addresses: Sequence[Address[IP]]) -> list[IP]:
    fit = [a for a in addresses if not a.deprecated and can_be_a_hosts(int(a.ip), a.ip.version)]
    return [a.ip for a in sorted(fit, key=lambda a: (a.ip.is_link_local, a.dynamic, a.temporary))]


def _first(link: Link) -> IPv4Address:
    usable = link.usable()
    if not usable:
        raise LookupError(f"failed to find IPv4 address for interface {link.name}")
    return usable[0]


def _endpoint(settings: Settings, link: Link, address: IPv4Address) -> Endpoint:
    if link.mtu <= 0:
        raise HostError(f"failed to determine MTU for {address} interface {link.name}")
    public_ipv6 = settings.public_ipv6 or link.public_ipv6()
    return Endpoint(link.name, link.index, link.mtu, address, settings.public_ip or address, public_ipv6)


def _list(links: Sequence[Link]) -> str:
    return f"this host has {', '.join(map(str, links)) or 'no interfaces'}"
