"""Which leases get in each other's way: two nodes known by one address, or subnets that overlap.

Pure, and quick to ask: with thousands of leases a question takes microseconds. etcd does not keep such pairs apart, and
neither does flanneld: a key stands for one pair of subnets only. Knows nothing of who is to give way.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterator

from udpbackend.model import WIDTH, Lease, Prefix


class Rivals:
    """Leases, each under its key of etcd, by what can be another one's too."""

    def __init__(self) -> None:
        self._public_ips: defaultdict[int, dict[bytes, None]] = defaultdict(dict)
        self._subnets = _Prefixes()
        self._ipv6_subnets = _Prefixes()

    def add(self, key: bytes, lease: Lease) -> None:
        """Adds a lease; its key must not be in use."""
        self._public_ips[lease.public_ip][key] = None
        self._subnets.add(lease.subnet, key)
        if lease.ipv6_subnet is not None:
            self._ipv6_subnets.add(lease.ipv6_subnet, key)

    def remove(self, key: bytes, lease: Lease) -> None:
        """Removes what was added with the same two."""
        keys = self._public_ips[lease.public_ip]
        del keys[key]
        if not keys:
            del self._public_ips[lease.public_ip]
        self._subnets.remove(lease.subnet, key)
        if lease.ipv6_subnet is not None:
            self._ipv6_subnets.remove(lease.ipv6_subnet, key)

    def same_public_ip(self, lease: Lease) -> bytes | None:
        """The key of a lease with this one's public IP, of several the first that was added."""
        return next(iter(self._public_ips.get(lease.public_ip, ())), None)

    def overlapping(self, lease: Lease) -> bytes | None:
        """The key of a lease whose IPv4 subnet overlaps this one's."""
        return next(self._subnets.overlapping(lease.subnet), None)

    def overlapping_ipv6(self, lease: Lease) -> bytes | None:
        """The key of a lease whose IPv6 subnet overlaps this one's."""
        return next(self._ipv6_subnets.overlapping(lease.ipv6_subnet), None) if lease.ipv6_subnet else None

    def any(self, lease: Lease) -> bool:
        """Whether there is any of these."""
        return (self.same_public_ip(lease) or self.overlapping(lease) or self.overlapping_ipv6(lease)) is not None


class _Prefixes:
    """Prefixes of one IP version, several of them equal if need be, in the order of their addresses."""

    def __init__(self) -> None:
        self._sorted: list[tuple[int, int, bytes]] = []
        self._lengths: Counter[int] = Counter()

    def add(self, prefix: Prefix, key: bytes) -> None:
        insort(self._sorted, (prefix.address, prefix.bits, key))
        self._lengths[prefix.bits] += 1

    def remove(self, prefix: Prefix, key: bytes) -> None:
        del self._sorted[bisect_left(self._sorted, (prefix.address, prefix.bits, key))]
        self._lengths[prefix.bits] -= 1
        if not self._lengths[prefix.bits]:
            del self._lengths[prefix.bits]

    def overlapping(self, prefix: Prefix) -> Iterator[bytes]:
        """Prefixes overlap only by nesting: those that begin inside, and those around, which are shorter."""
        yield from self._between((prefix.address, 0), (prefix.last + 1, 0))
        for bits in self._lengths:
            host_bits = WIDTH[prefix.version] - bits
            around = prefix.address >> host_bits << host_bits
            if bits < prefix.bits and around != prefix.address:
                yield from self._between((around, bits), (around, bits + 1))

    def _between(self, first: tuple[int, int], end: tuple[int, int]) -> Iterator[bytes]:
        for i in range(bisect_left(self._sorted, first), len(self._sorted)):
            address, bits, key = self._sorted[i]
            if (address, bits) >= end:
                return
            yield key
