"""flannel's keys and values in etcd, to the byte: where the configuration and the leases stand, and what a lease says.

Pure: bytes to values and back. A lease is `<prefix>/subnets/10.5.3.0-24`, or `.../10.5.84.0-24&fc00:0:0:39::-64` with
an IPv6 subnet; its value is a JSON object in the order in which Go writes flannel's struct. flannel looks for such a
key anywhere in a text, we only where it belongs; all that flannel writes is read.
"""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv6Address

import msgspec

from udpbackend.errors import ConfigError
from udpbackend.gojson import UNREADABLE, shown
from udpbackend.model import Attributes, Lease, Prefix, can_be_a_hosts

SUBNET = re.compile(r"([0-9.]{7,15})-([0-9]{1,2})(?:&([0-9a-f:]{2,39})-([0-9]{1,3}))?")

LONGEST = {4: 31, 6: 127}
"""By IP version, the longest subnet flannel reads in a key."""

ABSENT = b"null"
"""What a lease without backend data says: registries that have a place for it always say something."""

GO_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
"""Go writes these so wherever they stand in JSON, so that it may stand in a web page."""

Subnets = tuple[Prefix, Prefix | None]
"""A node's IPv4 subnet and, if it has one, its IPv6 subnet."""


class Keys:
    """The keys of one network, whose `prefix` does not end in a slash."""

    def __init__(self, prefix: str) -> None:
        self.config = f"{prefix}/config".encode()
        self.subnets = f"{prefix}/subnets/".encode()
        """What the key of every lease begins with."""

    def key(self, subnets: Subnets) -> bytes:
        """The key of a lease."""
        text = "&".join(str(subnet) for subnet in subnets if subnet is not None)
        return self.subnets + text.replace("/", "-").encode()

    def parse(self, key: bytes) -> Subnets | None:
        """The subnets that a key names; None if it is not the key of a lease."""
        if not key.startswith(self.subnets):
            return None
        match = SUBNET.fullmatch(key[len(self.subnets) :].decode(errors="replace"))
        if match is None:
            return None
        address, bits, address6, bits6 = match.groups()
        try:
            subnet = _subnet(address, bits, 4)
            return subnet, _subnet(address6, bits6, 6) if address6 else None
        except ConfigError:
            return None

    def lease(self, key: bytes, value: bytes) -> Lease:
        """The lease that stands at a key. Raises ConfigError that names the key and what is wrong with it."""
        subnets = self.parse(key)
        if subnets is None:
            raise ConfigError(f"{_text(key)}: expected a key like {_text(self.subnets)}10.5.3.0-24")
        try:
            return _lease(subnets, value)
        except ConfigError as error:
            raise ConfigError(f"{_text(key)}: {error}, in {shown(_text(value))}") from None


def encode(attributes: Attributes) -> bytes:
    """The value of a lease; backend data is written as it is given, so it should be compact."""
    fields = [
        f'"PublicIP":"{attributes.public_ip}"',
        f'"PublicIPv6":"{attributes.public_ipv6}"' if attributes.public_ipv6 else '"PublicIPv6":null',
    ]
    if attributes.backend_type != "udp":
        fields.append(f'"BackendType":{json.dumps(attributes.backend_type, ensure_ascii=False)}')
    for name, data in (("BackendData", attributes.backend_data), ("BackendV6Data", attributes.backend_v6_data)):
        if data is not None:
            fields.append(f'"{name}":{data.decode()}')
    return f"{{{','.join(fields)}}}".translate(GO_ESCAPES).encode()


def _lease(subnets: Subnets, value: bytes) -> Lease:
    try:
        raw = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
        fields = {name.casefold(): bytes(text) for name, text in raw.items()}
        address = _string(fields, "PublicIP")
        address6 = _string(fields, "PublicIPv6")
        kind = _string(fields, "BackendType")
    except UNREADABLE as error:
        raise ConfigError(f"expected a lease as JSON: {error}") from None
    return Lease(
        subnets[0],
        _public_ip(address),
        ipv6_subnet=subnets[1],
        backend_type=kind.lower() or "udp",
        backend_data=fields.get("backenddata", ABSENT),
        backend_v6_data=fields.get("backendv6data", ABSENT),
        public_ipv6=_public_ipv6(address6) if address6 else None,
    )


def _string(fields: dict[str, bytes], name: str) -> str:
    """A string, empty if absent or null."""
    return msgspec.json.decode(fields.get(name.casefold(), ABSENT), type=str | None) or ""


def _public_ip(text: str) -> int:
    try:
        address = int(IPv4Address(text))
    except ValueError:
        address = 0
    if not can_be_a_hosts(address):
        raise ConfigError(f"PublicIP: expected the IPv4 address of a host, got {shown(text) if text else 'nothing'}")
    return address


def _public_ipv6(text: str) -> int:
    try:
        return int(IPv6Address(text if "%" not in text else ""))
    except ValueError:
        raise ConfigError(f"PublicIPv6: expected an IPv6 address, got {shown(text)}") from None


def _subnet(address: str, bits: str, version: int) -> Prefix:
    subnet = Prefix.parse(f"{address}/{bits}")
    if subnet.version != version or subnet.bits > LONGEST[version]:
        raise ConfigError("not a subnet of flannel's")
    return subnet


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
