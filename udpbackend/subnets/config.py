"""A network configuration: flannel's JSON keys, its defaults and its refusals.

Pure: text in, NetworkConfig out. Serves every registry, so it knows none; what stands in `Backend` beside the type is
read by that backend.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from udpbackend.errors import ConfigError
from udpbackend.gojson import Fields, decode, shown
from udpbackend.model import BackendConfig, NetworkConfig, Prefix

KNOWN_BACKENDS = ("udp",)


def parse_config(text: str | bytes) -> NetworkConfig:
    """Reads a whole configuration. Raises ConfigError."""
    return read_config(Fields(decode(text)))


def read_config(fields: Fields) -> NetworkConfig:
    """Reads a configuration out of an object that may hold other keys as well. Raises ConfigError."""
    _families(fields)
    network = _network(fields)
    subnet_len = _subnet_len(fields, network)
    size = 1 << (32 - subnet_len)
    # By default the first subnet is left out: its base is the network's own address, which some take for a broadcast.
    return NetworkConfig(
        network=network,
        subnet_len=subnet_len,
        subnet_min=_boundary(fields, "SubnetMin", network, size) or IPv4Address(network.address + size),
        subnet_max=_boundary(fields, "SubnetMax", network, size) or IPv4Address(network.last + 1 - size),
        backend=_backend(fields),
    )


def _families(fields: Fields) -> None:
    fields.boolean("EnableNFTables", default=False)  # read for its type alone: there are no rules to write yet
    ipv6 = fields.boolean("EnableIPv6", default=False)
    if not fields.boolean("EnableIPv4", default=True):
        raise ConfigError(
            "EnableIPv4: only IPv4 networks are built so far, expected true or no such key"
            if ipv6
            else "none defined stack: EnableIPv4 is false, expected true or no such key"
        )
    if ipv6:
        raise ConfigError("EnableIPv6: IPv6 networks are not built yet, expected false or no such key")


def _network(fields: Fields) -> Prefix:
    text = fields.string("Network")
    try:
        network = Prefix.parse(text, mask=True) if text else Prefix(0, 0)
    except ConfigError as error:
        raise ConfigError(f"Network: {error}") from None
    if network.version != 4:
        raise ConfigError(f"Network: expected an IPv4 network, like 10.5.0.0/16, got {text!r}")
    if network == Prefix(0, 0):
        raise ConfigError("please define a correct Network parameter in the flannel config")
    return network


def _subnet_len(fields: Fields, network: Prefix) -> int:
    given = fields.whole("SubnetLen") or 0
    if given < 0:
        raise ConfigError(f"SubnetLen: expected a prefix length, got {given}")
    if given > 30:
        raise ConfigError("SubnetLen must be less than /31")
    if given:
        if given < network.bits + 2:
            raise ConfigError("network must be able to accommodate at least four subnets")
        return given
    if network.bits > 28:
        raise ConfigError("network is too small. Minimum useful network prefix is /28")
    return 24 if network.bits <= 22 else network.bits + 2


def _boundary(fields: Fields, name: str, network: Prefix, size: int) -> IPv4Address | None:
    """SubnetMin or SubnetMax; None if absent, for which flannel also takes 0.0.0.0."""
    text = fields.string(name)
    try:
        address = IPv4Address(text or 0)
    except ValueError:
        raise ConfigError(f"{name}: expected an IPv4 address, got {text!r}") from None
    if not int(address):
        return None
    if not network.holds(address):
        raise ConfigError(f"{name} is not in the range of the Network")
    if int(address) % size:
        raise ConfigError(f"{name} is not on a SubnetLen boundary: {address}")
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
    if kind not in KNOWN_BACKENDS:
        expected = " or ".join(shown(name) for name in KNOWN_BACKENDS)
        raise ConfigError(f"unknown backend type: {kind} (Backend.Type: expected {expected})")
    return BackendConfig(kind, options or {})
