"""Network devices that an overlay has left: flannel*, and a bridge cni0 of another subnet.

Owns the rules by which one is known, pure functions over plain data, and its removal. Must not know who runs.

- A device of ours is named flannel* and bears our mark, of whatever kind: what backends make is not known here.
- A device of flannel's has one of flannel's names and is of the kind that flannel makes under it. flanneld's TUN
  vanishes with flanneld; so one without our mark is somebody's, and that flanneld may be running is taken from it.
- Any other device named flannel* is left alone, as is one that is a port of a bridge.
- cni0 is left over if it has an address that is not in this node's subnet: the bridge plugin refuses to use it then.
  With pods attached it is in use. Where nothing says what the subnet is, it may be another network's: left alone, and
  not even shown with pods attached.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import AF_INET, AF_INET6
from typing import Any

from udpbackend.errors import HostError
from udpbackend.host import fou, mark, rtnetlink
from udpbackend.host.fou import FouPort
from udpbackend.host.fou_link import sends_to
from udpbackend.host.leftovers_item import Leftover
from udpbackend.host.mark import BRIDGE
from udpbackend.host.netlink import Netlink, failing
from udpbackend.model import Prefix

FLANNELS = {
    "tun": re.compile(r"flannel\d+"),
    "vxlan": re.compile(r"flannel(?:-v6)?\.\d+"),
    "wireguard": re.compile(r"flannel-wg(?:-v6)?"),
    "ipip": re.compile(r"flannel\.ipip"),
}


@dataclass(frozen=True, slots=True)
class Device:
    """A network device, as much of it as is judged."""

    name: str
    index: int
    kind: str
    """What the kernel calls it, `vxlan` for example; empty for hardware."""
    alias: str = ""
    queues: int = 0
    """Of a TUN, how many queues programs hold open."""
    bridge: int = 0
    """The index of the device it is a port of."""
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    port: FouPort | None = None
    """Of a tunnel of ours, the FOU port that receives for it and goes with it."""

    @property
    def ours(self) -> bool:
        """Whether a daemon of ours has made it."""
        return mark.ours(self.name, self.alias)

    @property
    def flannels(self) -> bool:
        """Whether flannel makes such a device."""
        return self.kind in FLANNELS and bool(FLANNELS[self.kind].fullmatch(self.name))

    @property
    def foreign_tun(self) -> bool:
        """Whether a flanneld may be behind it now."""
        return self.kind == "tun" and self.flannels and not self.ours


async def read_devices(netlink: Netlink) -> list[Device]:
    """Every device there is."""

    async def read(ip: Any) -> list[Device]:
        with failing("look at the network devices"):
            links = await rtnetlink.links(ip)
            held = [it for family in (AF_INET, AF_INET6) for it in await rtnetlink.addresses(ip, family=family)]
        return [_device(link, [it for it in held if it["index"] == link["index"]]) for link in links]

    return await netlink.call(read)


def overlay_devices(netlink: Netlink, devices: Sequence[Device]) -> Iterator[Leftover]:
    """Those of an overlay, and others of such a name."""
    for it in devices:
        if not mark.overlays(it.name):
            continue
        why = "udp-backend has made it" if it.ours else f"flannel makes a {it.kind} device of this name"
        yield Leftover(
            (f"device {it.name}", *([str(it.port)] if it.port else [])),
            why if it.ours or it.flannels else "its name begins as flannel's do",
            partial(_delete, netlink, it),
            alone=_in_use(it, devices),
            shared=it.kind != "tun",  # flanneld takes over a VXLAN device, never a TUN
        )


def bridge(netlink: Netlink, devices: Sequence[Device], subnets: Sequence[Prefix]) -> Iterator[Leftover]:
    """cni0, if it is left over. `subnets`: this node's, none where nothing says what they are."""
    for it in devices:
        ports = [port.name for port in devices if port.bridge == it.index]
        astray = stray_addresses(it, subnets)
        if it.name != BRIDGE or not astray or (ports and not subnets):
            continue
        alone = "" if it.kind == "bridge" else f"it is a {it.kind or 'hardware'} device, expected a bridge"
        if ports:
            alone = f"in use: {', '.join(ports)} attached"
        elif not subnets:
            alone = "it may be another network's: no subnet file says what this node's subnet is"
        why = f"it has {', '.join(map(str, astray))}, the subnet is {', '.join(map(str, subnets)) or 'unknown'}"
        yield Leftover((f"bridge {BRIDGE}",), why, partial(_delete, netlink, it), alone)


def stray_addresses(device: Device, subnets: Sequence[Prefix]) -> list[IPv4Address | IPv6Address]:
    """Addresses outside the subnets; where these are of one IP version, the other's addresses do not count."""
    versions = {subnet.version for subnet in subnets} or {4, 6}
    return [
        it
        for it in device.addresses
        if it.version in versions and not it.is_link_local and not any(subnet.holds(it) for subnet in subnets)
    ]


def _in_use(device: Device, devices: Sequence[Device]) -> str:
    """Why an overlay's device is not to be removed; empty if it is."""
    kind = device.kind or "hardware"
    if not device.ours and not device.flannels:
        return f"no overlay makes a {kind} device of this name"
    if device.foreign_tun:
        return f"made by another program: its alias is {device.alias!r}, expected one that begins with {mark.MARK!r}"
    if device.queues:
        return f"in use: a program holds {device.queues} queue(s) of it"
    if device.bridge:
        owner = next((it.name for it in devices if it.index == device.bridge), "another device")
        return f"in use: it is a port of {owner}"
    return ""


async def _delete(netlink: Netlink, device: Device) -> None:
    async def work(ip: Any) -> None:
        with failing(f"remove {device.name}"):
            if any(link.get_attr("IFLA_MASTER") == device.index for link in await rtnetlink.links(ip)):
                raise HostError(f"cannot remove {device.name}: another device has just been attached to it")
            await ip.link("del", index=device.index)
            if device.port is not None:
                fou.delete(device.port)

    await netlink.call(work)


def _device(link: Any, held: Sequence[Any]) -> Device:
    return Device(
        name=link.get_attr("IFLA_IFNAME"),
        index=link["index"],
        kind=link.get(("linkinfo", "kind")) or "",
        alias=link.get_attr("IFLA_IFALIAS") or "",
        queues=link.get(("linkinfo", "data", "IFLA_TUN_NUM_QUEUES")) or 0,
        bridge=link.get_attr("IFLA_MASTER") or 0,
        port=sends_to(link),
        addresses=tuple(ip_address(it.get_attr("IFA_LOCAL") or it.get_attr("IFA_ADDRESS")) for it in held),
    )
