"""Whether the kernel's reverse-path filter drops what peers send us.

Strict (1), it drops a packet whose source it would not answer by the interface that the packet came in by (RFC 3704).
Many distributions set it, and mostly it does no harm. So the value alone is no finding: the kernel is asked as well
what it would do with a packet from each peer on the underlay, and from a pod of each on the overlay.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address

from udpbackend.doctor import peers
from udpbackend.doctor.aside import aside
from udpbackend.doctor.facts import Facts
from udpbackend.doctor.routes import Way, refused, ways
from udpbackend.findings.finding import Finding, NotChecked, Results, count, named
from udpbackend.host import sysctl

STRICT = 1


async def look(facts: Facts) -> Results:
    """The filter of the underlay's and of the overlay's interface."""
    if facts.running is None:
        return [NotChecked(f"{facts.why_not_running}, so its interfaces are not known")]
    interface = facts.running[1]
    asked, unasked = peers.choose(facts.peers)
    found: list[Finding] = []
    for device, address, sources in (
        (interface.name, interface.address, {it.public_ip: str(it) for it in asked}),
        (interface.overlay_device, interface.overlay_address, {it.overlay + 1: f"pods of {it}" for it in asked}),
    ):
        if device and address and (keys := await _strict(device)):
            dropped = await refused(facts, sources, device=device, address=IPv4Address(address))
            found += judge(device, keys, sources, await ways(facts, dropped))
    return [*found, *unasked]


def judge(
    device: str, keys: list[str], names: Mapping[IPv4Address, str], back: Mapping[IPv4Address, Way]
) -> list[Finding]:
    """`keys`: what makes the filter strict; `back`: the ways to those whose packets it drops."""
    other = [f"to {names[it]} by {way.device or way.error}" for it, way in back.items() if way.device != device]
    if not other:
        return []
    loose = " ".join(f"{sysctl.called(key)}=2" for key in keys)
    return [
        Finding(
            "part",
            f"the reverse-path filter drops what comes in by {device} from {count(len(other), 'peer')}",
            f"{', '.join(f'{sysctl.called(key)} is 1' for key in keys)}, and the ways back are {named(other)}",
            f"mend the routes, so that answers leave by {device}; or make the filter loose: sysctl -w {loose}",
        )
    ]


@aside
def _strict(device: str) -> list[str]:
    """The keys that make the filter of a device strict; the larger of the two values counts."""
    keys = [f"ipv4/conf/{name}/rp_filter" for name in ("all", device)]
    values = {key: sysctl.read(key) or 0 for key in keys}
    return [key for key in keys if values[key] == STRICT] if max(values.values()) == STRICT else []
