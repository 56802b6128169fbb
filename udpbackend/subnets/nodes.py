"""The text of a static registry: a network configuration and `Nodes`, checked as a whole.

Pure: bytes in, leases out, or a ConfigError with the key path of the first thing that is wrong. Written for 65,536
nodes: prefixes are integers, and overlaps are found in sorted order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from typing import Any, Literal

import msgspec

from udpbackend.errors import ConfigError
from udpbackend.gojson import Fields, decode, shown
from udpbackend.model import LONGEST_SUBNET, Lease, NetworkConfig, Prefix, can_be_a_hosts
from udpbackend.subnets.config import read_config

Key = Literal["Subnet", "IPv6Subnet"]


def parse_nodes(data: bytes, known: Iterable[Lease] = ()) -> tuple[NetworkConfig, tuple[Lease, ...]]:
    """The configuration and every node's lease, in the order of their subnets. Raises ConfigError.

    A lease equal to one that is `known` is that object: an edit of one node among 65,536 makes no second copy of them.
    """
    fields = Fields(_taken_apart(data))
    config = read_config(fields)
    values = fields.raw("Nodes")
    if not isinstance(values, list):
        got = shown(values) if "Nodes" in fields else "no such key"
        raise ConfigError(f'Nodes: expected a list of {{"Name", "PublicIP", "Subnet"}} objects, got {got}')
    values.reverse()
    by_subnet = {lease.subnet.address: lease for lease in known}
    leases: list[Lease] = []
    for i in range(len(values)):
        new = _lease(_value(values.pop()), f"Nodes[{i}]", config)
        old = by_subnet.get(new.subnet.address)
        leases.append(old if old == new else new)
    del by_subnet
    _require_unique(leases, "Name", lambda lease: lease.node or None)
    _require_unique(leases, "PublicIP", lambda lease: lease.public_ip)
    _require_unique(leases, "PublicIPv6", lambda lease: lease.public_ipv6)
    order = _disjoint("Subnet", {i: lease.subnet for i, lease in enumerate(leases)}, leases)
    _disjoint("IPv6Subnet", {i: it.ipv6_subnet for i, it in enumerate(leases) if it.ipv6_subnet is not None}, leases)
    return config, tuple(leases[i] for i in order)


def _taken_apart(data: bytes) -> Any:
    """The document, its nodes still as text: as objects they would need more memory than all their leases do."""
    try:
        data.decode()  # only our reader looks into every string
        top = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (UnicodeDecodeError, msgspec.MsgspecError):
        return decode(data)  # which says what is wrong, and where
    if len({key.casefold() for key in top}) < len(top):
        return decode(data)  # which knows the one that counts
    return {key: _nodes(raw) if key.casefold() == "nodes" else decode(bytes(raw)) for key, raw in top.items()}


def _nodes(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.ValidationError:  # no list
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
    if not _is_host(address):
        got = repr(text) if text else "nothing"
        raise ConfigError(f"{node.place('PublicIPv6')}: expected the IPv6 address of a host, got {got}")
    if config.ipv6 is not None and config.ipv6.network.holds(address):
        raise ConfigError(
            f"{node.place('PublicIPv6')}: {address} is inside the IPv6Network {config.ipv6.network}: "
            "expected an address outside the overlay"
        )
    return int(address)


def _is_host(address: IPv6Address) -> bool:
    """Whether packets from another link can be sent to it; IPv4 in IPv6's clothes never leaves a host."""
    return not (
        address.is_unspecified
        or address.is_loopback
        or address.is_multicast
        or address.is_link_local
        or address.ipv4_mapped
    )


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


def _require_unique(leases: list[Lease], key: str, value_of: Callable[[Lease], object]) -> None:
    seen: dict[object, int] = {}
    for i, lease in enumerate(leases):
        value = value_of(lease)
        first = seen.setdefault(value, i) if value is not None else i
        if first != i:
            words = {"PublicIP": IPv4Address, "PublicIPv6": IPv6Address}.get(key, shown)
            raise ConfigError(f"Nodes[{i}].{key}: {words(value)} is that of {_called(leases, first)} too")


def _disjoint(key: Key, subnets: dict[int, Prefix], leases: list[Lease]) -> list[int]:
    """Indexes in the order of the subnets. Prefixes overlap only by nesting, and then they are neighbours in it."""
    order = sorted(subnets, key=lambda i: subnets[i].address)
    for before, after in pairwise(order):
        if subnets[before].overlaps(subnets[after]):
            first, second = sorted((before, after))
            one, other = subnets[second], subnets[first]
            relation = f"{one} is the subnet" if one == other else f"{one} overlaps {other}"
            whose = f"of {_called(leases, first)}" + (" too" if one == other else "")
            raise ConfigError(f"Nodes[{second}].{key}: {relation} {whose}{_owner(leases[second])}")
    return order


def _called(leases: list[Lease], i: int) -> str:
    return f"Nodes[{i}] ({shown(leases[i].node)})" if leases[i].node else f"Nodes[{i}]"


def _owner(lease: Lease) -> str:
    return f", in the node {shown(lease.node)}" if lease.node else ""
