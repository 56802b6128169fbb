"""What the nodes of the udp backend say of themselves, and where each is, for a dataplane that has a route to each.

Pure. Must not know which dataplane a node has: on the wire they are alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from udpbackend.backends.peers import Own, others
from udpbackend.model import Lease, Prefix

TAKES_IPV6 = b'{"udpbackend":1,"ipv6":true}'
"""What a node says that takes IPv6 out of datagrams; flanneld's udp backend looks at nobody's data."""


class Reached(NamedTuple):
    """A peer, in one IP version."""

    who: str
    subnet: Prefix
    outer: bytes
    """Its PublicIP, in network byte order: 4 bytes, whatever is inside."""

    @property
    def gateway(self) -> bytes:
        """What a route through a tunnel device has to name: an IPv6 route takes `::a.b.c.d` (RFC 4291, 2.5.5.1)."""
        return self.outer if self.subnet.version == 4 else bytes(12) + self.outer


def reached(leases: Iterable[Lease], own: Own, version: int) -> list[Reached]:
    """The other nodes that packets of that IP version can be sent to."""
    found = []
    for lease in leases:
        if version == 6 and not takes_ipv6(lease):
            continue
        outer = lease.public_ip.to_bytes(4, "big")
        found += [Reached(peer.who, peer.subnet, outer) for peer in others((lease,), own, version)]
    return found


def takes_ipv6(lease: Lease) -> bool:
    """Whether the node says that it takes IPv6 out of datagrams: real flanneld, which has a subnet for it, does not."""
    if lease.backend_data is None:  # a registry without a place for it gives a subnet to those that do
        return lease.ipv6_subnet is not None
    try:
        said = json.loads(lease.backend_data)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("ipv6") is True and "udpbackend" in said
