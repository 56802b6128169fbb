"""The route table of a snapshot: who gets the packets for which subnet, and what is ours.

Pure. Must not know how a table is published.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from udpbackend.backends.udp_peers import takes_ipv6
from udpbackend.dataplane.native import ROUTE, pack_route
from udpbackend.model import WIDTH, Lease, Prefix, Snapshot


def pack_table(
    snapshot: Snapshot, own: Lease | None, addresses: Iterable[IPv4Address | IPv6Address], port: int
) -> tuple[bytearray, int]:
    """The packed table: the other nodes' subnets, and as local ones our own and every address of this host.

    Also how many of the former there are. A node that carries no IPv6 knows no node's IPv6 subnet.
    """
    local = {Prefix(int(address), WIDTH[address.version], address.version) for address in addresses}
    if own is not None:
        local |= {subnet for subnet in (own.subnet, own.ipv6_subnet) if subnet is not None}
    table = bytearray(b"".join(map(pack_route, local)))
    for it in snapshot.leases:
        if it.subnet not in local:
            table += pack_route(it.subnet, it.public_ip, port)
    if own is not None and own.ipv6_subnet is not None:
        for it in snapshot.leases:
            if it.ipv6_subnet and it.ipv6_subnet not in local and takes_ipv6(it):
                table += pack_route(it.ipv6_subnet, it.public_ip, port)
    return table, len(table) // ROUTE.size - len(local)
