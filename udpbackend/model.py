"""The words the whole program shares: prefixes, leases, snapshots, endpoints.

Owns plain frozen values and their arithmetic; knows no file, no socket, no registry. A prefix is a struct of integers
and not an `ipaddress` network because a table may hold 65,536 of them, and each of those would weigh half a kilobyte.
"""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Self

import msgspec

from udpbackend.errors import ConfigError

WIDTH = {4: 32, 6: 128}
"""Address width in bits by IP version."""

LONGEST_SUBNET = {4: 30, 6: 126}
"""By IP version, the fewest addresses of use to a node: the overlay device's, the bridge's and one pod's."""


def can_be_a_hosts(address: int, version: int = 4) -> bool:
    """Whether an address, as an integer, can be that of a host which others reach over a network.

    IPv4: not zero network, loopback, multicast or broadcast; class E is unicast to Linux. IPv6: not unspecified,
    loopback, multicast, link-local, or IPv4 in IPv6's clothes. (The same as packet_is_no_host of native/packet.c.)
    """
    if version == 4:
        return address >> 24 not in (0, 127) and address >> 28 != 14 and address != 0xFFFFFFFF
    return address > 1 and address >> 120 != 0xFF and address >> 118 != 0xFE80 >> 6 and address >> 32 != 0xFFFF


class Prefix(msgspec.Struct, frozen=True, order=True, gc=False):
    """An IPv4 or IPv6 network: `address` is an integer in host order with all host bits zero."""

    address: int
    bits: int
    version: int = 4

    @classmethod
    def parse(cls, text: str, *, mask: bool = False) -> Self:
        """Reads `10.5.1.0/24`; host bits are an error unless `mask`. Raises ConfigError that names the text."""
        base, slash, length = text.partition("/")
        try:
            address = ip_address(base if "%" not in base else "")  # a scope belongs to a link, not to a network
            bits = int(length) if length.isascii() and length.isdecimal() else -1
        except ValueError:
            bits = -1
        if not slash or bits < 0 or bits > WIDTH[address.version]:
            raise ConfigError(f"invalid CIDR {text!r}: expected an address and a prefix length, like 10.5.1.0/24")
        found = cls(int(address), bits, address.version).masked()
        if not mask and found.address != int(address):
            raise ConfigError(f"invalid CIDR {text!r}: host bits are set, expected {found}")
        return found

    def masked(self) -> Self:
        """The same prefix with its host bits cleared."""
        return type(self)(self.address & ~self.host_mask, self.bits, self.version)

    @property
    def host_mask(self) -> int:
        """An integer with a one for every host bit."""
        return (1 << (WIDTH[self.version] - self.bits)) - 1

    @property
    def last(self) -> int:
        """The highest address, as an integer."""
        return self.address | self.host_mask

    @property
    def base(self) -> IPv4Address | IPv6Address:
        """The lowest address: the overlay's device carries it."""
        return IPv4Address(self.address) if self.version == 4 else IPv6Address(self.address)

    def contains(self, other: Prefix) -> bool:
        """Whether every address of `other` is ours too."""
        return self.version == other.version and self.address <= other.address and other.last <= self.last

    def overlaps(self, other: Prefix) -> bool:
        """Whether the two share an address."""
        return self.version == other.version and self.address <= other.last and other.address <= self.last

    def holds(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether `address` lies in this prefix."""
        return address.version == self.version and self.address <= int(address) <= self.last

    def packed(self) -> bytes:
        """The base address in network byte order, 4 or 16 bytes."""
        return self.address.to_bytes(WIDTH[self.version] // 8, "big")

    def __str__(self) -> str:
        return f"{ipv4_text(self.address) if self.version == 4 else self.base}/{self.bits}"


class BackendConfig(msgspec.Struct, frozen=True):
    """The `Backend` object of a network configuration: its type in lower case and all its keys as written."""

    type: str
    options: dict[str, Any]


class IPv6Config(msgspec.Struct, frozen=True):
    """The IPv6 half of a network configuration: flannel's keys that begin with IPv6."""

    network: Prefix
    subnet_len: int
    subnet_min: IPv6Address
    subnet_max: IPv6Address


class NetworkConfig(msgspec.Struct, frozen=True):
    """A validated network configuration; flannel's keys, masked and with their defaults filled in."""

    network: Prefix
    subnet_len: int
    subnet_min: IPv4Address
    subnet_max: IPv4Address
    backend: BackendConfig
    ipv6: IPv6Config | None = None
    """None where EnableIPv6 is false, whatever the other IPv6 keys say."""
    nftables: bool = False
    """Whether firewall rules are written with nft instead of iptables."""

    @property
    def networks(self) -> tuple[Prefix, ...]:
        """The IPv4 network and, if there is one, the IPv6 network."""
        return (self.network,) if self.ipv6 is None else (self.network, self.ipv6.network)


class Endpoint(msgspec.Struct, frozen=True):
    """Where this host meets its peers: the interface we send from and the address we are known by."""

    interface: str
    index: int
    mtu: int
    address: IPv4Address
    """The address the UDP socket is bound to (flannel's IfaceAddr)."""
    public_ip: IPv4Address
    """The address peers send to (flannel's PublicIP); differs from `address` behind NAT."""
    public_ipv6: IPv6Address | None = None
    """Likewise over IPv6, for backends that travel over it too; None where this host has or is given none."""


class Attributes(msgspec.Struct, frozen=True):
    """What a node's lease says beside its subnet: where the node is, and what its backend wants its peers to know."""

    public_ip: IPv4Address
    public_ipv6: IPv6Address | None = None
    backend_type: str = "udp"
    """In lower case; registries write none for udp, as flannel does."""
    backend_data: bytes | None = None
    """JSON text for the peers; None: nothing to say."""
    backend_v6_data: bytes | None = None


class Lease(msgspec.Struct, frozen=True, gc=False):
    """One node's share of the network."""

    subnet: Prefix
    public_ip: int
    """The node's PublicIP, an integer in host order."""
    node: str = ""
    """The node's name where the registry knows one."""
    ipv6_subnet: Prefix | None = None
    """Its share of the network's IPv6 half; None for a node that is to be sent no IPv6."""
    backend_type: str = "udp"
    """By what backend the node is reached; a lease of another type than ours is not for us."""
    backend_data: bytes | None = None
    """What the node's backend says, as JSON text; None where the registry has no place for it (the static one)."""
    backend_v6_data: bytes | None = None
    public_ipv6: int | None = None
    """Likewise an integer; only backends that travel over IPv6 need it."""

    @property
    def public_address(self) -> IPv4Address:
        """The node's PublicIP."""
        return IPv4Address(self.public_ip)

    @property
    def subnets(self) -> tuple[Prefix, ...]:
        """Its IPv4 subnet and, if it has one, its IPv6 subnet."""
        return (self.subnet,) if self.ipv6_subnet is None else (self.subnet, self.ipv6_subnet)


class Snapshot(msgspec.Struct, frozen=True):
    """Every lease of the network at one moment, our own included."""

    leases: tuple[Lease, ...]
    """Where a registry knows their age, the older before the newer."""
    revision: int
    """Grows with every change the registry has shown us; says nothing between two runs."""


def ipv4_text(address: int) -> str:
    """An IPv4 address, given in host order, as text: the same as ipaddress's in a third of the time."""
    return ".".join(map(str, address.to_bytes(4, "big")))


def inet(address: IPv4Address) -> int:
    """The address as the C side's `_be` fields hold it: four network-order bytes read as a native integer."""
    return int.from_bytes(address.packed, sys.byteorder)
