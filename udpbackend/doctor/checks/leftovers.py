"""What an earlier cluster has left on this host: devices, addresses and routes that lead packets astray.

A bridge cni0 with the gateway of another subnet keeps pods from starting, since the bridge plugin refuses it; a route
that is longer than ours takes its packets away from the overlay. What another daemon of this host has, for a network of
its own, is no leftover: ours tell what is theirs (`host.claims`), and a flanneld that runs here is seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, Self

from udpbackend.doctor.aside import aside
from udpbackend.doctor.facts import Facts
from udpbackend.findings import routes
from udpbackend.findings.finding import Finding, NotChecked, Results
from udpbackend.host import mark
from udpbackend.host.claims import Claim, claims
from udpbackend.host.interface import Link
from udpbackend.host.leftovers_users import OURS, overlays
from udpbackend.host.mark import BRIDGE
from udpbackend.model import Prefix

_claims = aside(claims)


async def look(facts: Facts) -> Results:
    """cni0, flannel*, and routes inside the network."""
    network, subnet = facts.network, facts.subnet
    if network is None or subnet is None:
        return [NotChecked("what this node's subnet is, neither a daemon nor subnet.env says")]
    overlay = facts.overlay
    second = facts.running and facts.running[1].overlay_ipv6_device
    others = Others.of([it for it in await _claims() if overlay not in it.devices and network not in it.networks])
    found = list(devices([link for link in facts.links if link.name != second], subnet, overlay, others))
    return found + (routes.astray(facts.here, await facts.routes(), facts.names) if facts.here else [])


class Others(NamedTuple):
    """What other daemons of this host have."""

    devices: Collection[str] = ()
    networks: Sequence[Prefix] = ()
    flannel: str = ""
    """A flanneld that runs here, in words: which device is its own cannot be told."""

    @classmethod
    def of(cls, found: Sequence[Claim]) -> Self:
        """By what they claim, and the processes there are."""
        flannels = [str(it) for it in overlays() if it.name != OURS]
        devices = [device for it in found for device in it.devices]
        return cls(devices, [network for it in found for network in it.networks], flannels[0] if flannels else "")


def devices(
    links: Sequence[Link], subnet: Prefix, overlay: str | None, others: Others | None = None
) -> Iterator[Finding]:
    """Addresses that do not belong to today's subnet; the overlay's device has its base alone."""
    others = others or Others()
    for link in links:
        held = [it.ip for it in link.addresses if not any(network.holds(it.ip) for network in others.networks)]
        if link.name == BRIDGE and (foreign := [ip for ip in held if not subnet.holds(ip)]):
            yield Finding(
                "part",
                f"the bridge {BRIDGE} is of another network: new pods cannot be attached to it",
                f"{BRIDGE} has {_list(foreign)}, this node's subnet is {subnet}",
                f"move the pods away (kubectl drain), then ip link delete {BRIDGE}: the CNI plugin makes it again",
            )
        elif link.name == overlay and (foreign := [ip for ip in held if ip != subnet.base]):
            yield Finding(
                "risk",
                f"{overlay} has an address that is not this node's",
                f"{overlay} has {_list(foreign)}, expected {subnet.base} alone",
                f"ip address delete {foreign[0]} dev {overlay}; a restart of the daemon does it too",
            )
        elif mark.overlays(link.name) and link.name not in (overlay, *others.devices) and held and not others.flannel:
            yield Finding(
                "part",
                f"the device {link.name} of an earlier network is still there",
                f"{link.name} has {_list(held)}, the overlay of this node is {overlay or 'without a device'}",
                f"ip link delete {link.name}, once no other flannel runs on this host",
            )


def _list(addresses: Any) -> str:
    return ", ".join(map(str, addresses))
