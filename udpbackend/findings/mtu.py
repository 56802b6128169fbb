"""Whether a full packet of the overlay still fits the underlay's interface."""

from __future__ import annotations

from udpbackend.findings.finding import Finding
from udpbackend.findings.here import Here


def judge(here: Here, interface_mtu: int) -> list[Finding]:
    """`interface_mtu`: as it is now, in bytes."""
    room = interface_mtu - here.overhead
    if here.overlay_mtu <= room:
        return []
    return [
        Finding(
            "part",
            f"full packets of the overlay do not fit {here.interface}: they are cut, or their senders are told",
            f"{here.interface} has an MTU of {interface_mtu}, which leaves {room}, and pods have {here.overlay_mtu}",
            f"ip link set {here.interface} mtu {here.overlay_mtu + here.overhead}, if the link takes it; or restart "
            "the daemon, and make the pods again",
        )
    ]
