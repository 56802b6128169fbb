"""Routes, neighbours and forwarding entries as plain tuples, and their netlink messages.

Owns the bytes of three kinds of messages, both ways. Pure: must not know sockets, nor why an entry is wanted. pyroute2
reads and writes these too, at 40 us and more each; with thousands of peers looked at every few seconds that would be
a core, so here they are read and written with as little as they need.

Addresses are bytes in network byte order: their length tells the family. MAC addresses are 6 bytes, `link` is the index
of a device.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import NamedTuple, Self

from udpbackend.host.overlay_plan import METRIC
from udpbackend.host.rtnetlink import PROTO_OURS, SCOPE_UNIVERSE, TABLE_MAIN, TYPE_UNICAST, attribute
from udpbackend.model import Prefix

AF_BRIDGE = 7
FAMILY = {4: AF_INET, 16: AF_INET6}
"""By the length of an address."""
VERSION = {4: 4, 16: 6}

NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGHBOUR, DELETE_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30

ACK, DUMP, REPLACE, CREATE = 0x4, 0x300, 0x100, 0x400
"""NLM_F_* of linux/netlink.h."""

SCOPE_ANY = 255
"""RT_SCOPE_NOWHERE: in a request to delete, whatever the scope."""
ONLINK = 0x4
"""RTNH_F_ONLINK: the gateway need not be in a network of the device."""

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_MULTIPATH, RTA_VIA = 1, 4, 5, 6, 9, 18
NDA_DST, NDA_LLADDR, NDA_PORT, NDA_VNI, NDA_IFINDEX = 1, 2, 6, 7, 8

PERMANENT = 0x80
"""NUD_PERMANENT: never asked for and never forgotten."""
SELF = 0x02
"""NTF_SELF: an entry of the device itself, not of a bridge above it."""

ROUTE = struct.Struct("=BBBBBBBBI")
"""rtmsg: family, destination's and source's length, TOS, table, protocol, scope, type, flags."""
NEIGHBOUR = struct.Struct("=BxHiHBB")
"""ndmsg: family, padding, index, state, flags, type."""
ATTRIBUTE = struct.Struct("=HH")
INDEX = struct.Struct("=I")


class Request(NamedTuple):
    """One netlink message, but for its header's length and sequence number."""

    kind: int
    flags: int
    body: bytes


class Route(NamedTuple):
    """A unicast route of table main with our protocol number: `<base>/<bits> via <gateway> dev <link>`."""

    base: bytes
    bits: int
    gateway: bytes
    """Empty for a route without one, or with several: never one of those we make."""
    link: int
    onlink: bool
    metric: int

    @classmethod
    def to(cls, subnet: Prefix, gateway: bytes, link: int, *, onlink: bool = False) -> Self:
        """The route we make to a subnet."""
        return cls(subnet.packed(), subnet.bits, gateway, link, onlink, METRIC[subnet.version])

    def add(self) -> Request:
        """Adds it, in place of one to the same destination with the same metric, whoever has made that."""
        flags = ONLINK if self.onlink else 0
        head = (FAMILY[len(self.base)], self.bits, 0, 0, TABLE_MAIN, PROTO_OURS, SCOPE_UNIVERSE, TYPE_UNICAST, flags)
        return Request(NEW_ROUTE, ACK | CREATE | REPLACE, ROUTE.pack(*head) + self._attributes())

    def delete(self) -> Request:
        """Deletes exactly this one."""
        head = (FAMILY[len(self.base)], self.bits, 0, 0, TABLE_MAIN, PROTO_OURS, SCOPE_ANY, TYPE_UNICAST, 0)
        return Request(DELETE_ROUTE, ACK, ROUTE.pack(*head) + self._attributes())

    def _attributes(self) -> bytes:
        parts = [attribute(RTA_DST, self.base)]
        if self.gateway:
            parts.append(attribute(RTA_GATEWAY, self.gateway))
        if self.link:
            parts.append(attribute(RTA_OIF, INDEX.pack(self.link)))
        if self.metric:
            parts.append(attribute(RTA_PRIORITY, INDEX.pack(self.metric)))
        return b"".join(parts)

    def __str__(self) -> str:
        via = f" via {ip_address(self.gateway)}" if self.gateway else ""
        return f"route {ip_address(self.base)}/{self.bits}{via}"


class Neighbour(NamedTuple):
    """A permanent entry: the device reaches `address` at `mac`."""

    address: bytes
    mac: bytes
    link: int

    def add(self) -> Request:
        """Adds it, or makes the one there is for the address this one."""
        head = NEIGHBOUR.pack(FAMILY[len(self.address)], 0, self.link, PERMANENT, 0, 0)
        body = head + attribute(NDA_DST, self.address) + attribute(NDA_LLADDR, self.mac)
        return Request(NEW_NEIGHBOUR, ACK | CREATE | REPLACE, body)

    def delete(self) -> Request:
        """Deletes the entry of its address."""
        head = NEIGHBOUR.pack(FAMILY[len(self.address)], 0, self.link, 0, 0, 0)
        return Request(DELETE_NEIGHBOUR, ACK, head + attribute(NDA_DST, self.address))

    def __str__(self) -> str:
        return f"neighbour {ip_address(self.address)} at {self.mac.hex(':')}"


class Forward(NamedTuple):
    """A permanent forwarding entry of a VXLAN device: frames to `mac` go to the host `outer`."""

    mac: bytes
    outer: bytes
    link: int
    elsewhere: bool = False
    """Another port, VNI or link than the device's own: never so in those we make."""

    def add(self) -> Request:
        """Adds it, or makes the one there is for the MAC this one."""
        head = NEIGHBOUR.pack(AF_BRIDGE, 0, self.link, PERMANENT, SELF, 0)
        body = head + attribute(NDA_DST, self.outer) + attribute(NDA_LLADDR, self.mac)
        return Request(NEW_NEIGHBOUR, ACK | CREATE | REPLACE, body)

    def delete(self) -> Request:
        """Deletes the entry of its MAC."""
        head = NEIGHBOUR.pack(AF_BRIDGE, 0, self.link, 0, SELF, 0)
        return Request(DELETE_NEIGHBOUR, ACK, head + attribute(NDA_LLADDR, self.mac))

    def __str__(self) -> str:
        return f"forwarding entry {self.mac.hex(':')} to {ip_address(self.outer)}"


Entry = Route | Neighbour | Forward


def dump_routes(version: int) -> Request:
    """Asks for our unicast routes of table main; the kernel filters."""
    family = AF_INET if version == 4 else AF_INET6
    return Request(GET_ROUTE, DUMP, ROUTE.pack(family, 0, 0, 0, TABLE_MAIN, PROTO_OURS, 0, TYPE_UNICAST, 0))


def dump_neighbours(version: int, link: int) -> Request:
    """Asks for the neighbours of one device."""
    head = NEIGHBOUR.pack(AF_INET if version == 4 else AF_INET6, 0, 0, 0, 0, 0)
    return Request(GET_NEIGHBOUR, DUMP, head + attribute(NDA_IFINDEX, INDEX.pack(link)))


def dump_forwards(link: int) -> Request:
    """Asks for the forwarding entries of one device."""
    return Request(GET_NEIGHBOUR, DUMP, NEIGHBOUR.pack(AF_BRIDGE, 0, link, 0, 0, 0))


def look_up(address: bytes) -> Request:
    """Asks how the host sends to an address; the answer is for `direct_link`."""
    family = FAMILY[len(address)]
    head = ROUTE.pack(family, 8 * len(address), 0, 0, 0, 0, 0, 0, 0)
    return Request(GET_ROUTE, 0, head + attribute(RTA_DST, address))


def read_route(body: bytes) -> Route | None:
    """A route of a dump; None for one that is not as `Route` says, should the kernel not have filtered."""
    family, bits, _, _, table, protocol, _, kind, flags = ROUTE.unpack_from(body)
    if (table, protocol, kind) != (TABLE_MAIN, PROTO_OURS, TYPE_UNICAST):
        return None
    base = bytes(4 if family == AF_INET else 16)  # a default route has none
    gateway, link, metric = b"", 0, 0
    for which, value in attributes(body, ROUTE.size):
        if which == RTA_DST:
            base = value
        elif which == RTA_GATEWAY:
            gateway = value
        elif which == RTA_OIF:
            (link,) = INDEX.unpack(value)
        elif which == RTA_PRIORITY:
            (metric,) = INDEX.unpack(value)
    return Route(base, bits, gateway, link, bool(flags & ONLINK), metric)


def direct_link(body: bytes) -> int:
    """The index of the link by which an address is reached without a gateway; 0 if there is one, or no way at all."""
    kind = ROUTE.unpack_from(body)[7]
    found = dict(attributes(body, ROUTE.size))
    if (
        kind != TYPE_UNICAST
        or RTA_OIF not in found
        or not found.keys().isdisjoint((RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH))
    ):
        return 0
    return int(INDEX.unpack(found[RTA_OIF])[0])


def read_neighbour(body: bytes) -> Neighbour | None:
    """A neighbour of a dump; None for one the kernel has found itself."""
    _, _, link, state, _, _ = NEIGHBOUR.unpack_from(body)
    found = dict(attributes(body, NEIGHBOUR.size))
    if not state & PERMANENT or NDA_DST not in found or NDA_LLADDR not in found:
        return None
    return Neighbour(found[NDA_DST], found[NDA_LLADDR], link)


def read_forward(body: bytes) -> Forward | None:
    """A forwarding entry of a dump; None for a learned one, and for what has no address or no MAC of its own."""
    _, _, link, state, _, _ = NEIGHBOUR.unpack_from(body)
    found = dict(attributes(body, NEIGHBOUR.size))
    mac, outer = found.get(NDA_LLADDR, b""), found.get(NDA_DST, b"")
    if not state & PERMANENT or not any(mac) or not outer:
        return None
    return Forward(mac, outer, link, not found.keys().isdisjoint((NDA_PORT, NDA_VNI, NDA_IFINDEX)))


def attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each attribute of a message, from `offset` on."""
    end = len(body)
    while offset + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(body, offset)
        if length < 4:
            return
        yield kind, body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
