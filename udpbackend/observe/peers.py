"""The other nodes of a report: those of the registry and those of the table, drawn together one by one.

There may be 65,536 of them, so none is held longer than it takes to write it down, and what is counted is counted once
for each snapshot. Must not read anything itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge, nsmallest
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, NamedTuple

from udpbackend.model import Lease, ipv4_text
from udpbackend.observe import report

if TYPE_CHECKING:
    from udpbackend.dataplane.native import PeerCounters
    from udpbackend.observe.facts import Facts

PUBLIC_IP = attrgetter("public_ip")
NAMED = 3
"""Slow peers, and unanswered ones, that the verdict names."""


class PeerCount(NamedTuple):
    """How many peers there are, by their state: without traffic a healthy one is silent."""

    total: int
    seen: int
    unanswered: int

    @property
    def silent(self) -> int:
        """Those of which nothing is known: nothing came lately, and we do not keep sending."""
        return self.total - self.seen - self.unanswered


def count_peers(facts: Facts) -> PeerCount:
    """Of the published table; of the registry where the kernel has the table."""
    if not facts.infos:
        return PeerCount(facts.nodes.known, 0, 0)
    return PeerCount(len(facts.peers), facts.seen, len(facts.peers.unanswered))


def some(facts: Facts, most: int) -> Iterator[report.Peer]:
    """At most so many by address, those first that do not answer, then the silent: they are what one looks for."""
    if not most:
        return iter(())
    if not facts.infos:
        chosen = nsmallest(most, {it.public_ip for it in facts.nodes.followed()})
        rows = dict.fromkeys(chosen)
    else:
        addresses = facts.peers.addresses
        found: dict[int, None] = {}
        for group in (facts.peers.unanswered, facts.peers.silent, range(len(addresses))):
            others = (i for i in group if i not in found)
            found |= dict.fromkeys(nsmallest(most - len(found), others, key=addresses.__getitem__))
        rows = {addresses[i]: facts.peers[i] for i in found}
    leases: dict[int, list[Lease]] = {address: [] for address in rows}
    for lease in facts.nodes.followed():
        if lease.public_ip in leases:
            leases[lease.public_ip].append(lease)
    return (_peer(address, leases[address], row, facts.port) for address, row in rows.items())


def every(facts: Facts) -> Iterator[report.Peer]:
    """Each node of the registry or of the table, by address: they differ for the moment before a publish."""
    addresses = facts.peers.addresses
    order = sorted(range(len(addresses)), key=addresses.__getitem__)
    known = ((lease.public_ip, lease, -1) for lease in sorted(facts.nodes.followed(), key=PUBLIC_IP))
    counted = ((addresses[index], None, index) for index in order)
    for address, entries in groupby(merge(known, counted, key=itemgetter(0)), key=itemgetter(0)):
        leases, row = [], None
        for _, lease, index in entries:
            if lease is not None:
                leases.append(lease)
            else:
                row = facts.peers[index]
        yield _peer(address, leases, row, facts.port)


def slow(facts: Facts) -> Iterator[str]:
    """A clause for each peer whose packets find no room on the way; where there are many, one for all the others."""
    named = facts.slow[:NAMED]
    for peer, who in zip(named, _called(facts, [int(peer.address) for peer in named]), strict=True):
        seconds = int(peer.dropped_ago_s or 0)
        when = f"{seconds} s ago" if seconds else "just now"
        yield f"peer {who} takes less than it is sent: {peer.tx_dropped} packets dropped, the last {when}"
    if len(facts.slow) > NAMED:
        yield f"{len(facts.slow) - NAMED} more peers take less than they are sent"


def unanswered(facts: Facts) -> Iterator[str]:
    """A clause for those that we keep sending to in vain, if there are any. Only some are named."""
    if indexes := facts.peers.unanswered:
        addresses = facts.peers.addresses
        found = sorted(addresses[index] for index in indexes)
        who = ", ".join(_called(facts, found[:NAMED])) + (", ..." if len(found) > NAMED else "")
        yield f"{len(found)} unanswered: {who} (ask `udp-backend doctor` or `udp-backend ping`)"


def _called(facts: Facts, addresses: Sequence[int]) -> list[str]:
    """Names and public IPs, as far as there are names."""
    leases = facts.nodes.followed() if addresses else ()
    names = {it.public_ip: it.node for it in leases if it.node and it.public_ip in addresses}
    texts = ((names.get(address), ipv4_text(address)) for address in addresses)
    return [f"{node} ({text})" if node else text for node, text in texts]


def _peer(address: int, leases: Sequence[Lease], counted: PeerCounters | None, port: int | None) -> report.Peer:
    node = next((lease.node for lease in leases if lease.node), "")
    ordered = sorted(leases, key=attrgetter("subnet")) if len(leases) > 1 else leases
    subnets = [str(lease.subnet) for lease in ordered]
    subnets += [str(lease.ipv6_subnet) for lease in ordered if lease.ipv6_subnet is not None]
    if counted is None:
        return report.Peer(node=node, public_ip=ipv4_text(address), port=port, subnets=subnets)
    return report.Peer(
        node=node,
        public_ip=ipv4_text(address),
        port=counted.port,
        subnets=subnets,
        tx_packets=counted.tx_packets,
        tx_bytes=counted.tx_bytes,
        rx_packets=counted.rx_packets,
        rx_bytes=counted.rx_bytes,
        path_mtu=counted.path_mtu,
        path_mtu_left_s=counted.path_mtu_left_s,
        silent_s=None if counted.silent_s is None else round(counted.silent_s, 3),
        tx_dropped=counted.tx_dropped,
        tx_dropped_ago_s=None if counted.dropped_ago_s is None else round(counted.dropped_ago_s, 3),
        state=counted.state,
        unanswered_s=counted.unanswered_s,
    )
