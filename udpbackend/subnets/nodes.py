"""The text of a static registry: a network configuration and `Nodes`, checked as a whole.

Pure: bytes in, leases out, or a ConfigError with the key path of the first thing that is wrong. Written for 65,536
nodes: prefixes are integers, and overlaps are found in sorted order.
"""

from __future__ import annotations

from bisect import bisect_left
from codecs import iterdecode
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from typing import Any, Literal

import msgspec

from udpbackend.errors import ConfigError
from udpbackend.gojson import UNREADABLE, Fields, decode, shown
from udpbackend.model import LONGEST_SUBNET, Lease, NetworkConfig, Prefix, can_be_a_hosts
from udpbackend.subnets.config import read_config

Key = Literal["Subnet", "IPv6Subnet"]
PIECE_BYTES = 1 << 16


def parse_nodes(data: bytes, known: Sequence[Lease] = ()) -> tuple[NetworkConfig, tuple[Lease, ...]]:
    """The configuration and every node's lease, in the order of their subnets. Raises ConfigError.

    A lease equal to one that is `known` is that object: an edit of one node among 65,536 makes no second copy of them.
    Those must be in the same order.
    """
    fields = Fields(_taken_apart(data))
    config = read_config(fields)
    values = fields.raw("Nodes")
    if not isinstance(values, list):
        got = shown(values) if "Nodes" in fields else "no such key"
        raise ConfigError(f'Nodes: expected a list of {{"Name", "PublicIP", "Subnet"}} objects, got {got}')
    values.reverse()
    leases = [_known(_lease(_value(values.pop()), f"Nodes[{i}]", config), known) for i in range(len(values))]
    _require_unique("Name", leases, lambda lease: lease.node or None)
    _require_unique("PublicIP", leases, lambda lease: lease.public_ip)
    _require_unique("PublicIPv6", leases, lambda lease: lease.public_ipv6)
    order = _disjoint("Subnet", leases, lambda lease: lease.subnet)
    _disjoint("IPv6Subnet", leases, lambda lease: lease.ipv6_subnet)
    return config, tuple(leases[i] for i in order)


def _known(lease: Lease, known: Sequence[Lease]) -> Lease:
    """The object that is known already, if it is the same lease."""
    at = bisect_left(known, lease.subnet, key=lambda it: it.subnet)
    return known[at] if at < len(known) and known[at] == lease else lease


def _taken_apart(data: bytes) -> Any:
    """The document, its nodes still as text: as objects they would need more memory than all their leases do."""
    try:
        for _ in iterdecode((data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)), "utf-8"):
            pass  # msgspec does not look into the strings of what it leaves as text
        top = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except UNREADABLE:
        return decode(data)  # which says what is wrong, and where
    if len({key.casefold() for key in top}) < len(top):
        return decode(data)  # which knows the one that counts
    return {key: _nodes(raw) if key.casefold() == "nodes" else decode(bytes(raw)) for key, raw in top.items()}


def _nodes(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw, type=list[msgspec.Raw])
    except UNREADABLE:  # no list
        return decode(bytes(raw))


def _value(node: Any) -> Any:
    return decode(bytes(node)) if isinstance(node, msgspec.Raw) else node


def _lease(value: Any, path: str, config: NetworkConfig) -> Lease:
    node = Fields(value, path)
    public_ip = _public_ip(node)
    network = config.network
    subnet = _subnet(node, "Subnet", network)
    if network.address <= public_ip <= network.last:
        raise ConfigError(
            f"{node.place('PublicIP')}: {IPv4Address(public_ip)} is inside the Network {network}: "
            "expected an address outside the overlay"
        )
    return Lease(
        subnet,
        public_ip,
        node.string("Name"),
        _ipv6_subnet(node, config),
        # A node may be reached otherwise than the rest, by another program: then it is not for us.
        backend_type=node.string("BackendType").lower() or config.backend.type,
        public_ipv6=_public_ipv6(node, config),
    )


def _public_ip(node: Fields) -> int:
    text = node.string("PublicIP")
    try:
        address = IPv4Address(text)
    except ValueError:
        address = IPv4Address(0)
    if not can_be_a_hosts(int(address)):
        got = repr(text) if text else "nothing"
        raise ConfigError(f"{node.place('PublicIP')}: expected the IPv4 address of a host, got {got}")
    return int(address)


def _public_ipv6(node: Fields, config: NetworkConfig) -> int | None:
    """Where backends that travel over IPv6 find the node; None where they do not."""
    if node.raw("PublicIPv6") is None:
        return None
    text = node.string("PublicIPv6")
    try:
        address = IPv6Address(text.replace("%", "/"))  # a scope belongs to a link, not to a host
    except ValueError:
        address = IPv6Address(0)
    if not can_be_a_hosts(int(address), 6):
        got = repr(text) if text else "nothing"
        raise ConfigError(f"{node.place('PublicIPv6')}: expected the IPv6 address of a host, got {got}")
    if config.ipv6 is not None and config.ipv6.network.holds(address):
        raise ConfigError(
            f"{node.place('PublicIPv6')}: {address} is inside the IPv6Network {config.ipv6.network}: "
            "expected an address outside the overlay"
        )
    return int(address)


def _ipv6_subnet(node: Fields, config: NetworkConfig) -> Prefix | None:
    """None for a node that is to be sent no IPv6."""
    if node.raw("IPv6Subnet") is None:
        return None
    if config.ipv6 is None:
        raise ConfigError(
            f"{node.place('IPv6Subnet')}: the network has no IPv6: expected no such key, or EnableIPv6 and an "
            "IPv6Network in the configuration"
        )
    return _subnet(node, "IPv6Subnet", config.ipv6.network)


def _subnet(node: Fields, key: Key, network: Prefix) -> Prefix:
    text = node.string(key)
    try:
        subnet = Prefix.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{node.place(key)}: {error}") from None
    longest = LONGEST_SUBNET[network.version]
    if subnet.version != network.version or subnet.bits > longest:
        raise ConfigError(
            f"{node.place(key)}: expected an IPv{network.version} subnet of /{longest} or larger, got {text!r}"
        )
    if not network.contains(subnet):
        where = key.replace("Subnet", "Network")
        raise ConfigError(f"{node.place(key)}: {subnet} is not inside the {where} {network}")
    return subnet


def _require_unique(key: str, leases: list[Lease], value_of: Callable[[Lease], Any]) -> None:
    """Equal values are neighbours in sorted order. With 65,536 nodes that takes 1 MB, a dictionary of them 4."""
    twice = [i for first, i in pairwise(_sorted(leases, value_of)) if value_of(leases[first]) == value_of(leases[i])]
    if twice:
        i, value = min(twice), value_of(leases[min(twice)])
        first = next(j for j, lease in enumerate(leases) if value_of(lease) == value)
        words = {"PublicIP": IPv4Address, "PublicIPv6": IPv6Address}.get(key, shown)
        raise ConfigError(f"Nodes[{i}].{key}: {words(value)} is that of {_called(leases, first)} too")


def _disjoint(key: Key, leases: list[Lease], subnet_of: Callable[[Lease], Prefix | None]) -> list[int]:
    """Indexes in the order of the subnets. Prefixes overlap only by nesting, and then they are neighbours in it."""
    order = _sorted(leases, subnet_of)
    for before, after in pairwise(order):
        first, second = sorted((before, after))
        one, other = subnet_of(leases[second]), subnet_of(leases[first])
        if one and other and one.overlaps(other):
            relation = f"{one} is the subnet" if one == other else f"{one} overlaps {other}"
            whose = f"of {_called(leases, first)}" + (" too" if one == other else "")
            raise ConfigError(f"Nodes[{second}].{key}: {relation} {whose}{_owner(leases[second])}")
    return order


def _sorted(leases: list[Lease], value_of: Callable[[Lease], Any]) -> list[int]:
    """Indexes in the order of a value, those of leases without one left out."""
    return sorted(
        (i for i, lease in enumerate(leases) if value_of(lease) is not None), key=lambda i: value_of(leases[i])
    )


def _called(leases: list[Lease], i: int) -> str:
    return f"Nodes[{i}] ({shown(leases[i].node)})" if leases[i].node else f"Nodes[{i}]"


def _owner(lease: Lease) -> str:
    return f", in the node {shown(lease.node)}" if lease.node else ""
