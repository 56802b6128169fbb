"""Whether what the peers send to our public IP arrives where we listen."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address

from udpbackend.findings.finding import Finding
from udpbackend.findings.here import Here


def judge(here: Here, held: Collection[IPv4Address]) -> list[Finding]:
    """`held`: every IPv4 address of this host. A public IP that is not among them is somebody's who passes it on."""
    if here.public_ip == here.address and here.address not in held:
        return [
            Finding(
                "down",
                f"this node is known by {here.public_ip}, which no interface of it has any longer",
                f"this host has {_list(held)}; no --public-ip says that somebody else has it",
                f"ip address add {here.public_ip} dev {here.interface}, or restart the daemon so that it takes the new "
                "address",
            )
        ]
    if here.port is not None and here.public_ip != here.address and here.public_ip in held:
        return [
            Finding(
                "down",
                f"this node is known by {here.public_ip}, but the socket is bound to {here.address}",
                f"both are addresses of this host, and what comes to {here.public_ip} is refused",
                f"restart the daemon with the --iface that has {here.public_ip}, or without --public-ip",
            )
        ]
    return []


def _list(held: Collection[IPv4Address]) -> str:
    return ", ".join(map(str, sorted(held))) or "no address"
