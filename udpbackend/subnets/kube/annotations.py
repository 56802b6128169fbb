"""The annotations by which flannel's nodes know each other: their names, and the texts a node of ours has.

Pure. Knows what a backend says only as text; what a node's texts mean is read in node.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Self, TypeVar

import msgspec

from udpbackend.errors import ConfigError, UsageError
from udpbackend.model import Attributes

Address = TypeVar("Address", IPv4Address, IPv6Address)

PREFIX = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z0-9_-]+/(?:[a-z0-9_-]+-)?")

NOTHING = "null"
"""What stands for backend data where a backend has none: it is JSON."""


class Names(msgspec.Struct, frozen=True):
    """The annotations' full names. We write the first group; the second are the administrator's wishes."""

    managed: str
    backend_type: str
    backend_data: str
    backend_v6_data: str
    public_ip: str
    public_ipv6: str

    public_ip_overwrite: str
    """Shown to the peers instead of this node's own address, which the node itself keeps using."""
    public_ipv6_overwrite: str
    node_public_ip: str
    """In place of --public-ip."""
    node_public_ipv6: str

    @classmethod
    def under(cls, prefix: str) -> Self:
        """The names that begin with `prefix`, --kube-annotation-prefix. Raises UsageError, in flannel's words."""
        wrong = f"got {prefix!r} (--kube-annotation-prefix)"
        if prefix.count("/") > 1:
            raise UsageError(f"subnet/kube: prefix can contain at most single slash: {wrong}")
        full = prefix if "/" in prefix else f"{prefix}/"
        if not full.endswith(("/", "-")):
            full += "-"
        if not PREFIX.fullmatch(full):
            raise UsageError(f"subnet/kube: prefix must be in a format: fqdn/[0-9a-z-_]*: {wrong}")
        names = {field: full + field.replace("_", "-") for field in cls.__struct_fields__}
        return cls(**{**names, "managed": f"{full}kube-subnet-manager"})

    def wanted(self, attributes: Attributes, said: Mapping[str, str]) -> dict[str, str]:
        """The texts our node is to have, given those it has now. Raises ConfigError for an overwrite of no meaning.

        The IPv6 ones are there only for a backend that travels over IPv6 too; as with flannel, others leave them alone.
        """
        texts = {
            self.managed: "true",
            self.backend_type: "" if attributes.backend_type == "udp" else attributes.backend_type,
            self.backend_data: _text(attributes.backend_data),
            self.public_ip: str(address_of(IPv4Address, said, self.public_ip_overwrite) or attributes.public_ip),
        }
        if attributes.public_ipv6 is not None:
            shown = address_of(IPv6Address, said, self.public_ipv6_overwrite) or attributes.public_ipv6
            texts |= {self.backend_v6_data: _text(attributes.backend_v6_data), self.public_ipv6: str(shown)}
        return texts

    def missing(self, attributes: Attributes, said: Mapping[str, str]) -> dict[str, str]:
        """Of `wanted`, what is not as it should be."""
        return {name: text for name, text in self.wanted(attributes, said).items() if said.get(name) != text}


def address_of(family: type[Address], said: Mapping[str, str], name: str) -> Address | None:
    """The address in an annotation, None if there is none. Raises ConfigError that names the annotation."""
    text = said.get(name, "")
    try:
        return family(text.replace("%", "/")) if text else None  # a scope belongs to a link, not to a node
    except ValueError:
        what = "IPv4" if family is IPv4Address else "IPv6"
        raise ConfigError(f"annotation {name}: expected an {what} address, got {text!r}") from None


def _text(data: bytes | None) -> str:
    return NOTHING if data is None else data.decode()
