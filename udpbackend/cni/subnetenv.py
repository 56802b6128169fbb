"""subnet.env as flannel's plugin reads it: line by line, without quotes or comments.

Owns the reading of the daemon's file and the words that say what is wrong with it. Must not know what for.
"""

from __future__ import annotations

import ipaddress

from udpbackend.cni.errors import reason

MTU_MAX = 2**32 - 1
"""flannel reads it as an unsigned number of 32 bits."""


class SubnetEnv:
    """Networks and subnets are texts like 10.5.3.0/24, the network's address with its length."""

    __slots__ = ("ip_masq", "mtu", "networks", "networks6", "subnet", "subnet6")

    def __init__(self) -> None:
        self.networks: list[str] = []
        self.networks6: list[str] = []
        self.subnet = ""
        self.subnet6 = ""
        self.mtu: int | None = None
        """In bytes."""
        self.ip_masq: bool | None = None
        """Whether the daemon masquerades; None until the file has said so, like the MTU."""

    def missing(self) -> list[str]:
        """The keys that a usable file needs besides; one of IPv4 and IPv6 is enough."""
        found = []
        if not self.networks and not self.networks6:
            found += ["FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"]
        if not self.subnet and not self.subnet6:
            found += ["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"]
        if self.mtu is None:
            found.append("FLANNEL_MTU")
        if self.ip_masq is None:
            found.append("FLANNEL_IPMASQ")
        return found


def load(path: str) -> SubnetEnv:
    """Reads the file. Raises ValueError with the words of Go for what is wrong with it."""
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        raise ValueError(f"open {path}: {reason(error)}") from None
    env = parse(text)
    if missing := env.missing():
        raise ValueError(f"{path} is missing {', '.join(missing)}")
    return env


def parse(text: str) -> SubnetEnv:
    """What the text says, complete or not; unknown keys are passed over. Raises ValueError naming a wrong value."""
    env = SubnetEnv()
    for line in text.split("\n"):
        key, equals, value = line[: -1 if line.endswith("\r") else None].partition("=")
        if key not in KEYS:
            continue
        if not equals:
            raise ValueError(f"{key} has no value")
        if key == "FLANNEL_NETWORK":
            env.networks = _networks(value)
        elif key == "FLANNEL_IPV6_NETWORK":
            env.networks6 = _networks(value)
        elif key == "FLANNEL_SUBNET":
            env.subnet = _network(value)
        elif key == "FLANNEL_IPV6_SUBNET":
            env.subnet6 = _network(value)
        elif key == "FLANNEL_MTU":
            env.mtu = _mtu(value)
        else:
            env.ip_masq = value == "true"
    return env


KEYS = frozenset(SubnetEnv().missing())


def cidr(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    """An address with its prefix length. Raises ValueError."""
    address, _, bits = text.partition("/")
    # Python would take a netmask, a zone and a lonely address as well.
    if not (bits.isascii() and bits.isdigit()) or (len(bits) > 1 and bits[0] == "0") or "%" in address:
        raise ValueError(f"invalid CIDR address: {text}")
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(f"invalid CIDR address: {text}") from None


def _network(text: str) -> str:
    return str(cidr(text).network)


def _networks(text: str) -> list[str]:
    """A list by commas, each network once."""
    return list(dict.fromkeys(map(_network, text.split(","))))


def _mtu(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if len(text.lstrip("0")) > len(str(MTU_MAX)) or int(text) > MTU_MAX:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)
