"""What backends that leave their packets to the kernel see of nodes: who the others are, and where.

Pure: leases in, peers out, of one IP version. Must not know routes; serves vxlan, host-gw and the udp backend
with the kernel's dataplane.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, Protocol, TypeVar

from udpbackend.errors import ConfigError
from udpbackend.model import Endpoint, Lease, Prefix


class Peer(NamedTuple):
    """Another node, in one IP version."""

    who: str
    """For people."""
    subnet: Prefix
    outer: bytes | None
    """Its PublicIP or PublicIPv6, in network byte order; None where its lease has no such address."""
    said: bytes | None
    """BackendData or BackendV6Data, as JSON text."""


@dataclass(frozen=True, slots=True)
class Own:
    """By what this host knows its own leases."""

    subnet: Prefix
    public_ip: int
    """A lease of an earlier subnet of ours bears it too, until it runs out."""


class Named(Protocol):
    """A node, as people are told of it."""

    @property
    def who(self) -> str:
        """Its name."""

    @property
    def subnet(self) -> Prefix:
        """What of it is meant."""


N = TypeVar("N", bound=Named)


def others(leases: Iterable[Lease], own: Own, version: int) -> Iterator[Peer]:
    """The other nodes that have a subnet of that IP version."""
    for lease in leases:
        if lease.subnet == own.subnet or lease.public_ip == own.public_ip:
            continue
        if version == 4:
            outer = lease.public_ip.to_bytes(4, "big")
            yield Peer(_called(lease), lease.subnet, outer, lease.backend_data)
        elif lease.ipv6_subnet is not None:
            outer6 = None if lease.public_ipv6 is None else lease.public_ipv6.to_bytes(16, "big")
            yield Peer(_called(lease), lease.ipv6_subnet, outer6, lease.backend_v6_data)


def not_reached(peer: Named, why: object) -> str:
    """The problem, in words."""
    return f"{peer.who} {_is_not_reached(peer.subnet)} {why}"


def tells_of(problem: str, subnet: Prefix) -> bool:
    """Whether a problem is that this subnet is not reached."""
    return _is_not_reached(subnet) in problem


def _is_not_reached(subnet: Prefix) -> str:
    return f"({subnet}) is not reached:"


def near(subnet: Prefix, own: Prefix, connected: Iterable[tuple[str, Prefix]]) -> str:
    """Why there can be no route to a subnet: this host has it on a link, by an interface; empty if it has not.

    `own`: this node's subnet, where that is as it should be. A host that has moved to another address has another
    subnet, and its old lease lasts for a day: a route to it would take the pods here away from this host.
    """
    for interface, prefix in connected:
        if prefix.overlaps(subnet) and not prefix.overlaps(own):
            return f"this host itself has {prefix} on {interface}, most likely from an earlier lease"
    return ""


def apart(found: Sequence[N], own: Prefix, links: Sequence[tuple[str, Prefix]]) -> tuple[Sequence[N], list[str]]:
    """Without the peers whose subnet is on a link of this host, and the words about those."""
    why = {it: words for it in found if (words := near(it.subnet, own, links))} if links else {}
    if not why:
        return found, []
    return [it for it in found if it not in why], [not_reached(it, words) for it, words in why.items()]


def own_ipv6(endpoint: Endpoint, mine: Collection[IPv4Address | IPv6Address]) -> IPv6Address:
    """Our PublicIPv6, of `mine`, this host's addresses. Raises ConfigError that says how to come by one."""
    address = endpoint.public_ipv6
    if address is None:
        raise ConfigError(
            f"the network has IPv6, and interface {endpoint.interface} has no IPv6 address to meet the peers at: give "
            "it one, name another with --public-ipv6, or take this node's IPv6 subnet away"
        )
    if address not in mine:
        raise ConfigError(f"--public-ipv6: expected an address of this host, got {address}")
    return address


def _called(lease: Lease) -> str:
    return f"node {lease.node}" if lease.node else f"node {lease.public_address}"
