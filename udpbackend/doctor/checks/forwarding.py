"""Whether this kernel forwards packets between pods and the overlay."""

from __future__ import annotations

from udpbackend.doctor import sysctl
from udpbackend.doctor.aside import aside
from udpbackend.doctor.facts import Facts
from udpbackend.doctor.finding import Finding, Results
from udpbackend.host.mark import BRIDGE


async def look(facts: Facts) -> Results:
    """ip_forward, and its twins of single devices and of IPv6."""
    ipv6 = bool(facts.running and facts.running[0].ipv6_subnet)
    devices = sorted({link.name for link in facts.links} & {BRIDGE, facts.overlay})
    return await _look(devices, ipv6=ipv6)


@aside
def _look(devices: list[str], *, ipv6: bool) -> list[Finding]:
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
