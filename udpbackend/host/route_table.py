"""The IPv4 routes of table main, of whoever has made them, but for our own to single subnets.

Owns their reading: raw, since on a host with thousands of routes everything else takes a second. Runs inside
`Netlink.call`.
"""

from __future__ import annotations

from socket import AF_INET
from typing import NamedTuple

from udpbackend.host.bulk import Bulk
from udpbackend.host.entries import (
    DUMP,
    GET_ROUTE,
    INDEX,
    ROUTE,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PRIORITY,
    RTA_VIA,
    Request,
    attributes,
)
from udpbackend.host.rtnetlink import PROTO_OURS, TABLE_MAIN
from udpbackend.model import Prefix


class TableRoute(NamedTuple):
    """A route as far as it matters where packets go."""

    destination: Prefix
    link: int
    """Its index; 0 for one that leads nowhere, or to several."""
    gateway: bool
    protocol: int
    metric: int


def read_main() -> list[TableRoute]:
    """All of them. Raises OSError."""
    with Bulk() as bulk:
        bodies = bulk.dump(Request(GET_ROUTE, DUMP, ROUTE.pack(AF_INET, 0, 0, 0, TABLE_MAIN, 0, 0, 0, 0)))
    return [route for body in bodies if (route := _route(body))]


def _route(body: bytes) -> TableRoute | None:
    family, bits, _, _, table, protocol, _, _, _ = ROUTE.unpack_from(body)
    if family != AF_INET or table != TABLE_MAIN or protocol == PROTO_OURS:
        return None
    found = dict(attributes(body, ROUTE.size))
    (link,) = INDEX.unpack(found[RTA_OIF]) if RTA_OIF in found else (0,)
    (metric,) = INDEX.unpack(found[RTA_PRIORITY]) if RTA_PRIORITY in found else (0,)
    base = int.from_bytes(found.get(RTA_DST, bytes(4)), "big")
    return TableRoute(Prefix(base, bits), link, RTA_GATEWAY in found or RTA_VIA in found, protocol, metric)
