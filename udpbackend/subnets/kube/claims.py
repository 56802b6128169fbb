"""Which of two nodes counts when both claim one subnet: the older, and we ourselves before all others.

Of nodes known by one address all count: the object of a machine that came back under another name lingers beside the
new one, and which of them is true is not to be seen. But nobody else is where we are.

Pure: readings in, leases out, with a word for each node that does not count or is in doubt. Written for thousands of
nodes: leases that count are disjoint, so a prefix can overlap only its neighbours among them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from udpbackend.model import Lease, Prefix
from udpbackend.subnets.kube.node import Reading


class _Taken:
    """The prefixes that are taken, in the order of their addresses, each with its owner."""

    def __init__(self) -> None:
        self._order: list[Prefix] = []
        self._owner: dict[Prefix, str] = {}

    def owner(self, prefix: Prefix) -> str | None:
        """Who has a prefix that shares an address with this one."""
        at = bisect_left(self._order, prefix)
        for near in self._order[max(0, at - 1) : at + 1]:
            if near.overlaps(prefix):
                return self._owner[near]
        return None

    def add(self, prefix: Prefix, owner: str) -> None:
        """Only for one that nobody has."""
        self._order.insert(bisect_left(self._order, prefix), prefix)
        self._owner[prefix] = owner


class Settled(NamedTuple):
    """Who counts."""

    leases: tuple[Lease, ...]
    """Those that count, our own among them, by subnet."""
    refused: dict[str, str]
    """By node why it does not count."""
    doubted: dict[str, str]
    """By node what speaks against it although it counts."""


def settle(own: Lease, readings: Iterable[Reading]) -> Settled:
    """Sorts out all nodes there are; `readings` of the others."""
    found = sorted((it.since, it.lease.node, it.lease) for it in readings if it.lease is not None)
    taken = {4: _Taken(), 6: _Taken()}
    addresses: dict[int, str] = {}
    leases, refused, doubted = [], {}, {}
    for lease in (own, *(it[2] for it in found)):
        owner = addresses.get(lease.public_ip)
        shared = owner and f"its public-ip {lease.public_address} is that of the node {owner!r} too"
        problem = shared if lease.public_ip == own.public_ip else _overlap(lease, taken)
        if problem:
            refused[lease.node] = problem
            continue
        if shared:
            doubted[lease.node] = shared
        leases.append(lease)
        addresses.setdefault(lease.public_ip, lease.node)
        for subnet in lease.subnets:
            taken[subnet.version].add(subnet, lease.node)
    return Settled(tuple(sorted(leases, key=lambda lease: lease.subnet)), refused, doubted)


def _overlap(lease: Lease, taken: dict[int, _Taken]) -> str:
    for subnet in lease.subnets:
        if (owner := taken[subnet.version].owner(subnet)) is not None:
            return f"its podCIDR {subnet} overlaps that of the node {owner!r}"
    return ""
