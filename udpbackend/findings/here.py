"""Whose host it is that is looked at: what the daemon has settled on at its start."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from udpbackend.model import Prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """One node of one network."""

    network: Prefix
    subnet: Prefix
    interface: str
    """By which datagrams leave."""
    address: IPv4Address
    """Of that interface; the socket is bound to it, where there is one."""
    public_ip: IPv4Address
    """By which the peers know this node."""
    port: int | None
    """Where a socket of ours is bound to that address; None where the kernel takes what comes to any."""
    overlay: str | None
    """The device that carries the subnet."""
    overlay_mtu: int
    overhead: int
    """Bytes that the backend puts before each packet."""
