"""Which of two nodes counts when both claim one subnet or one address: the older, and we ourselves before all others.

Pure: readings in, leases out, with a word for each node that does not count. Written for thousands of nodes: leases
that count are disjoint, so a prefix can overlap only its neighbours among them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

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


def settle(own: Lease, readings: Iterable[Reading]) -> tuple[tuple[Lease, ...], dict[str, str]]:
    """The leases that count, our own among them, by subnet; and by node why it does not count."""
    found = sorted((it.since, it.lease.node, it.lease) for it in readings if it.lease is not None)
    taken = {4: _Taken(), 6: _Taken()}
    addresses: dict[int, str] = {}
    leases, refused = [], {}
    for lease in (own, *(it[2] for it in found)):
        if problem := _claimed(lease, taken, addresses):
            refused[lease.node] = problem
            continue
        leases.append(lease)
        addresses[lease.public_ip] = lease.node
        for subnet in lease.subnets:
            taken[subnet.version].add(subnet, lease.node)
    return tuple(sorted(leases, key=lambda lease: lease.subnet)), refused


def _claimed(lease: Lease, taken: dict[int, _Taken], addresses: dict[int, str]) -> str:
    if (owner := addresses.get(lease.public_ip)) is not None:
        return f"its public-ip {lease.public_address} is that of the node {owner!r} too"
    for subnet in lease.subnets:
        if (owner := taken[subnet.version].owner(subnet)) is not None:
            return f"its podCIDR {subnet} overlaps that of the node {owner!r}"
    return ""
