"""Whether this kernel forwards packets between pods and the overlay; the daemon looks at the same."""

from __future__ import annotations

from udpbackend.doctor.aside import aside
from udpbackend.doctor.facts import Facts
from udpbackend.findings import forwarding
from udpbackend.findings.finding import Finding, Results
from udpbackend.host.mark import BRIDGE


async def look(facts: Facts) -> Results:
    """ip_forward, and its twins of single devices and of IPv6."""
    ipv6 = bool(facts.running and facts.running[0].ipv6_subnet)
    devices = sorted({link.name for link in facts.links} & {BRIDGE, facts.overlay})
    return await _look(devices, ipv6=ipv6)


@aside
def _look(devices: list[str], *, ipv6: bool) -> list[Finding]:
    return forwarding.look(devices, ipv6=ipv6)
