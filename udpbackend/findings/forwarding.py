"""Whether this kernel forwards packets between pods and the overlay."""

from __future__ import annotations

from collections.abc import Iterable

from udpbackend.findings.finding import Finding
from udpbackend.host import sysctl


def look(devices: Iterable[str], *, ipv6: bool) -> list[Finding]:
    """ip_forward, and its twins of these devices and of IPv6. Reads files of /proc; raises HostError."""
    keys = ["ipv4/ip_forward"]
    if sysctl.read(keys[0]) == 1:
        keys = [f"ipv4/conf/{device}/forwarding" for device in devices]
    if ipv6:
        keys.append("ipv6/conf/all/forwarding")
    return [finding(key) for key in keys if sysctl.read(key) == 0]


def finding(key: str) -> Finding:
    """For a key that is 0."""
    name = sysctl.called(key)
    whose = "of every pod" if key == "ipv4/ip_forward" else "of IPv6" if "ipv6" in key else f"of {key.split('/')[2]}"
    return Finding(
        "down",
        f"the kernel does not forward the packets {whose}",
        f"{name} is 0",
        f"sysctl -w {name}=1, and a file in /etc/sysctl.d that keeps it; look for what sets it to 0",
    )
