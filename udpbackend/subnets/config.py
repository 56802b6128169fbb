"""A network configuration: flannel's JSON keys, its defaults and its refusals.

Pure: text in, NetworkConfig out. Serves every registry, so it knows none; what stands in `Backend` beside the type is
read by that backend. IPv4 and IPv6 obey the same rules with other numbers, which a `_Family` holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, TypeVar

from udpbackend.errors import ConfigError
from udpbackend.gojson import Fields, decode
from udpbackend.model import WIDTH, BackendConfig, IPv6Config, NetworkConfig, Prefix

Address = TypeVar("Address", IPv4Address, IPv6Address)


@dataclass(frozen=True, slots=True)
class _Family(Generic[Address]):
    """What differs between the two halves of a configuration."""

    address: type[Address]
    version: int
    keys: str
    """How its keys begin."""
    called: str
    """The network, in one of flannel's messages."""
    usual_subnet_len: int
    example: str

    @property
    def longest_subnet_len(self) -> int:
        """The fewest addresses of use to a node: flannel0's, the bridge's and one pod's."""
        return WIDTH[self.version] - 2


IPV4 = _Family(IPv4Address, 4, "", "network", 24, "10.5.0.0/16")
IPV6 = _Family(IPv6Address, 6, "IPv6", "IPv6Network", 64, "fc00::/48")


def parse_config(text: str | bytes) -> NetworkConfig:
    """Reads a whole configuration. Raises ConfigError."""
    return read_config(Fields(decode(text)))


def read_config(fields: Fields) -> NetworkConfig:
    """Reads a configuration out of an object that may hold other keys as well. Raises ConfigError."""
    ipv6 = _is_ipv6(fields)
    return NetworkConfig(
        *_range(fields, IPV4),
        _backend(fields),
        IPv6Config(*_range(fields, IPV6)) if ipv6 else None,
        fields.boolean("EnableNFTables", default=False),
    )


def _is_ipv6(fields: Fields) -> bool:
    ipv6 = fields.boolean("EnableIPv6", default=False)
    if not fields.boolean("EnableIPv4", default=True):
        raise ConfigError(
            "EnableIPv4: an IPv6-only network is not built, expected true or no such key: datagrams travel over IPv4 "
            "and every node is known by its IPv4 subnet"
            if ipv6
            else "none defined stack: EnableIPv4 is false, expected true or no such key"
        )
    return ipv6


def _range(fields: Fields, family: _Family[Address]) -> tuple[Prefix, int, Address, Address]:
    """Network, SubnetLen, SubnetMin and SubnetMax of one half."""
    network = _network(fields, family)
    subnet_len = _subnet_len(fields, network, family)
    size = 1 << (WIDTH[family.version] - subnet_len)
    # By default the first subnet is left out: its base is the network's own address, which some take for a broadcast.
    return (
        network,
        subnet_len,
        _boundary(fields, "SubnetMin", network, size, family) or family.address(network.address + size),
        _boundary(fields, "SubnetMax", network, size, family) or family.address(network.last + 1 - size),
    )


def _network(fields: Fields, family: _Family[Address]) -> Prefix:
    key = f"{family.keys}Network"
    text = fields.string(key)
    nothing = Prefix(0, 0, family.version)
    try:
        network = Prefix.parse(text, mask=True) if text else nothing
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
    if network.version != family.version:
        raise ConfigError(f"{key}: expected an IPv{family.version} network, like {family.example}, got {text!r}")
    if network == nothing:
        got = repr(text) if text else "none"
        said = f"please define a correct {key} parameter in the flannel config"
        raise ConfigError(f"{said}: expected a network, like {family.example}, got {got}")
    return network


def _subnet_len(fields: Fields, network: Prefix, family: _Family[Address]) -> int:
    key = f"{family.keys}SubnetLen"
    given = fields.whole(key) or 0
    if given < 0:
        raise ConfigError(f"{key}: expected a prefix length, got {given}")
    if given > family.longest_subnet_len:
        raise ConfigError(f"SubnetLen must be less than /{family.longest_subnet_len + 1}: {key} is {given}")
    if given:
        if given < network.bits + 2:
            said = "network must be able to accommodate at least four subnets"
            raise ConfigError(f"{said}: {key} is {given}, expected {network.bits + 2} or more for {network}")
        return given
    smallest = WIDTH[family.version] - 4
    if network.bits > smallest:
        raise ConfigError(f"{family.called} is too small. Minimum useful network prefix is /{smallest}: got {network}")
    return max(family.usual_subnet_len, network.bits + 2)


def _boundary(fields: Fields, name: str, network: Prefix, size: int, family: _Family[Address]) -> Address | None:
    """SubnetMin or SubnetMax; None if absent, for which flannel also takes the address of all zeros."""
    key = f"{family.keys}{name}"
    text = fields.string(key)
    try:
        address = family.address(text.replace("%", "/") or 0)  # a scope belongs to a link, not to a network
    except ValueError:
        raise ConfigError(f"{key}: expected an IPv{family.version} address, got {text!r}") from None
    if not int(address):
        return None
    if not network.holds(address):
        raise ConfigError(f"{key} is not in the range of the {family.keys}Network: {address} is not in {network}")
    if int(address) % size:
        raise ConfigError(f"{key} is not on a SubnetLen boundary: {address}")
    return address


def _backend(fields: Fields) -> BackendConfig:
    """Without the key the type is udp; with it the type must be written out, though its case is free."""
    if "Backend" not in fields:
        return BackendConfig("udp", {})
    try:
        options = fields.raw("Backend")
        kind = Fields(options, "Backend").string("Type").lower()
    except ConfigError as error:
        raise ConfigError(f"error decoding Backend property of config: {error}") from None
    return BackendConfig(kind, options or {})
