"""Whose packets a walk through the host's rules is about: example packets, and how they are called.

Owns the choice of addresses. Pure. Must not know programs, chains or rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from udpbackend.host.forward_path import Ended, Packet
from udpbackend.host.mark import BRIDGE
from udpbackend.model import Prefix

PODS_PLACE = 2
"""Of an address in its subnet: the first that a pod may have."""
SHOWN = 5
"""So many subnets are named."""

Ends = tuple[Ended | None, Ended | None]
"""Of a packet from a pod, and of one to it; None: it is not ended for certain."""


@dataclass(frozen=True, slots=True)
class Passage:
    """Whose packets, and by which devices they come and go."""

    network: Prefix
    subnet: Prefix
    """Of the near end; a single address stands for itself."""
    device: str
    """That packets for other nodes leave by: the overlay's, or the underlay's where there is none."""
    far: Prefix | None = None
    """Of the other end; None: anywhere in the network, for what is said of all nodes at once."""

    @property
    def packets(self) -> tuple[Packet, Packet]:
        """One from a pod of this node, and one to it."""
        here = _pod(self.subnet)
        there = _pod(self.far) if self.far else _anywhere(self.network, self.subnet)
        return Packet(here, there, BRIDGE, self.device), Packet(there, here, self.device, BRIDGE)


def which(passages: Sequence[Passage], ends: Ends) -> str:
    """Which packets are ended, of passages that one rule ends."""
    out, back = ends
    names = [str(it.far) for it in passages[:SHOWN] if it.far]
    if not names:
        network = passages[0].network
        if out and back:
            return f"of {network}"
        return (
            f"of {network} from pods of this node to others"
            if out
            else (f"of {network} from other nodes to pods of this one")
        )
    more = f" and {len(passages) - SHOWN} more" if len(passages) > SHOWN else ""
    peers = ", ".join(names) + more
    if out and back:
        return f"between pods of this node and {peers}"
    return f"from pods of this node to {peers}" if out else f"from {peers} to pods of this node"


def _pod(subnet: Prefix) -> IPv4Address | IPv6Address:
    return _address(subnet, subnet.address + min(PODS_PLACE, subnet.host_mask))


def _anywhere(network: Prefix, subnet: Prefix) -> IPv4Address | IPv6Address:
    """In the network and not in the subnet."""
    there = _address(network, network.last - PODS_PLACE)
    return _address(network, network.address + PODS_PLACE) if subnet.holds(there) else there


def _address(prefix: Prefix, number: int) -> IPv4Address | IPv6Address:
    return ip_address(number.to_bytes(4 if prefix.version == 4 else 16, "big"))
