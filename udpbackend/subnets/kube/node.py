"""What we take out of a Kubernetes node: its name, its podCIDRs and its annotations, as a lease or why it has none.

Pure. Owns the shape of the JSON, of which everything else (images, conditions, addresses: 20 KB a node) is skipped
while it is decoded, and flannel's rules for podCIDRs. Knows neither the API server nor the other nodes.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import msgspec

from udpbackend.errors import ConfigError
from udpbackend.model import LONGEST_SUBNET, Lease, NetworkConfig, Prefix, can_be_a_hosts
from udpbackend.subnets.kube.annotations import NOTHING, Names, address_of


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """The object's own description."""

    name: str = ""
    """Empty in a bookmark."""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    """RFC 3339 in UTC, so that texts compare as times do."""
    annotations: dict[str, str] | None = None


class Spec(msgspec.Struct, frozen=True):
    """What is decided about the node."""

    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: tuple[str, ...] | None = msgspec.field(name="podCIDRs", default=None)


class Node(msgspec.Struct, frozen=True):
    """A node as the API server gives it."""

    metadata: Metadata = Metadata()
    spec: Spec = Spec()

    @property
    def name(self) -> str:
        """Its name, which identifies it as long as it is there."""
        return self.metadata.name

    @property
    def has_pod_cidr(self) -> bool:
        """Whether the cluster has given it a podCIDR, of whatever kind."""
        return bool(self.spec.pod_cidrs or self.spec.pod_cidr)

    @property
    def said(self) -> dict[str, str]:
        """Its annotations."""
        return self.metadata.annotations or {}


class Reading(msgspec.Struct, frozen=True):
    """A node of flannel's, read."""

    lease: Lease | None
    problem: str
    """Why there is no lease, or no IPv6 in it; empty if all is well."""
    since: str
    """When the node was created, to be compared only."""


def read(node: Node, names: Names, config: NetworkConfig) -> Reading | None:
    """What a peer's node says; None for one that is not flannel's."""
    if node.said.get(names.managed) != "true":
        return None
    said, since, problem = node.said, node.metadata.creation_timestamp, ""
    ipv6_subnet = public_ipv6 = None
    try:
        subnet, ipv6_subnet = pod_subnets(node)
        _require_inside(node, subnet, config.network, "PodCIDR")
        public_ip = _public_ip(said, names.public_ip, config.network)
    except ConfigError as error:
        return Reading(None, str(error), since)
    try:
        if ipv6_subnet is not None and config.ipv6 is not None:
            _require_inside(node, ipv6_subnet, config.ipv6.network, "IPv6 PodCIDR")
            public_ipv6 = address_of(IPv6Address, said, names.public_ipv6)
    except ConfigError as error:
        ipv6_subnet, problem = None, str(error)
    lease = _lease(node, names, (subnet, ipv6_subnet if config.ipv6 else None), public_ip)
    return Reading(msgspec.structs.replace(lease, public_ipv6=public_ipv6 and int(public_ipv6)), problem, since)


def own_lease(node: Node, names: Names, config: NetworkConfig, public_ip: IPv4Address) -> Lease:
    """The lease of this host, with what its annotations say of its backend. Raises ConfigError, in flannel's words."""
    subnet, ipv6_subnet = pod_subnets(node)
    _require_inside(node, subnet, config.network, "PodCIDR")
    if ipv6_subnet is not None and config.ipv6 is None:
        raise ConfigError(
            f'subnet "{ipv6_subnet}" specified in the PodCIDR, but doesn\'t exist in the flannel net config of the '
            f'"{node.name}" node: expected EnableIPv6 and an IPv6Network there'
        )
    if ipv6_subnet is not None and config.ipv6 is not None:
        _require_inside(node, ipv6_subnet, config.ipv6.network, "IPv6 PodCIDR")
    return _lease(node, names, (subnet, ipv6_subnet), public_ip)


def pod_subnets(node: Node) -> tuple[Prefix, Prefix | None]:
    """The node's IPv4 podCIDR and, if it has one, its IPv6 podCIDR. Raises ConfigError."""
    texts = node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())
    if not texts:
        raise ConfigError(f'node "{node.name}" pod cidr not assigned')
    try:
        found = {prefix.version: prefix for prefix in (Prefix.parse(text, mask=True) for text in texts)}
    except ConfigError as error:
        raise ConfigError(f'node "{node.name}" podCIDR: {error}') from None
    if len(found) != len(texts):
        raise ConfigError(f'node "{node.name}" pod cidrs should be IPv4/IPv6 only or dualstack: got {", ".join(texts)}')
    if 4 not in found:
        raise ConfigError(f'node "{node.name}" has no IPv4 podCIDR, got {texts[0]}: every node is known by one')
    for prefix in found.values():
        if prefix.bits > LONGEST_SUBNET[prefix.version]:
            raise ConfigError(
                f'node "{node.name}" podCIDR {prefix}: expected /{LONGEST_SUBNET[prefix.version]} or larger'
            )
    return found[4], found.get(6)


def _require_inside(node: Node, subnet: Prefix, network: Prefix, called: str) -> None:
    if not network.contains(subnet):
        raise ConfigError(
            f'subnet "{network}" specified in the flannel net config doesn\'t contain "{subnet}" {called} of the '
            f'"{node.name}" node'
        )


def _public_ip(said: dict[str, str], name: str, network: Prefix) -> IPv4Address:
    address = address_of(IPv4Address, said, name)
    if address is None:
        raise ConfigError(f"annotation {name}: expected an IPv4 address, got nothing")
    if not can_be_a_hosts(int(address)):
        raise ConfigError(f"annotation {name}: expected the IPv4 address of a host, got {address}")
    if network.holds(address):
        raise ConfigError(f"annotation {name}: {address} is inside the Network {network}, expected one outside of it")
    return address


def _lease(node: Node, names: Names, subnets: tuple[Prefix, Prefix | None], public_ip: IPv4Address) -> Lease:
    return Lease(
        subnets[0],
        int(public_ip),
        node.name,
        subnets[1],
        backend_type=node.said.get(names.backend_type, "").lower() or "udp",
        backend_data=_data(node, names.backend_data),
        backend_v6_data=_data(node, names.backend_v6_data),
    )


def _data(node: Node, name: str) -> bytes:
    return (node.said.get(name) or NOTHING).encode()
