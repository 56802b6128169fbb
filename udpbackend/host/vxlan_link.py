"""A VXLAN device: is it there, does it fit, and is everything on it as it should be.

Owns the device's making, its MAC, address, MTU and mark. Must not know peers: what leads to them is `reconcile`'s.

Theory of operation: what the kernel fixes when a device is made (VNI, local address, port, ...) decides whether one
that is there fits: flannel's comparison, with Port and Learning held to as well. One that does not fit is made again.
All else is mended where it stands, so that taking over a device, flanneld's too, disturbs no connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from udpbackend.errors import HostError
from udpbackend.host import kernel_device, rtnetlink
from udpbackend.host.netlink import failing
from udpbackend.model import Prefix


@dataclass(frozen=True, slots=True)
class Vtep:
    """What the device should be."""

    name: str
    vni: int
    port: int
    """UDP, where it listens and where its peers do."""
    underlay: str
    """The interface its packets leave by."""
    local: IPv4Address | IPv6Address
    """Their source."""
    mac: bytes
    address: IPv4Address | IPv6Address
    """The base address of this node's subnet; the device carries it as a /32 or /128."""
    network: Prefix
    """The overlay network: any other address inside it is of an earlier subnet."""
    mtu: int
    learning: bool = False
    gbp: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What stands under the name."""

    index: int
    mac: bytes
    unfit: str
    """Why it cannot become what is wanted; empty if it can."""


async def find(ip: Any, vtep: Vtep) -> Found | None:
    """What there is; HostError for a device that is no VXLAN at all, which is somebody else's and left alone."""
    with failing(f"look at {vtep.name}"):
        link = await rtnetlink.link(ip, ifname=vtep.name)
        if link is None:
            return None
        _refuse_other_kind(vtep.name, link)
        return Found(link["index"], _mac(link), await _unfit(ip, vtep, link))


async def ensure(ip: Any, vtep: Vtep, *, tidy: bool = False) -> tuple[int, list[str]]:
    """Makes the device what it should be: its index, and what had to be done.

    `tidy` removes the addresses of earlier subnets: at a start only, since what someone has added later is not ours.
    """
    done = []
    found = await find(ip, vtep)
    if found is not None and found.unfit:
        with failing(f"remove {vtep.name}, of which {found.unfit}"):
            await ip.link("del", index=found.index)
        done.append(f"removed {vtep.name}, of which {found.unfit}")
        found = None
    made = found is None
    if made:
        await _make(ip, vtep)
        done.append(f"made {vtep.name}")
    with failing(f"set up {vtep.name}"):
        link = await rtnetlink.link(ip, ifname=vtep.name)
        if link is None:
            raise HostError(f"{vtep.name} was deleted while it was set up")
        mended = [what async for what in _mend(ip, vtep, link, tidy=tidy)]
        link = await rtnetlink.link(ip, ifname=vtep.name)
    if link is None or _mac(link) != vtep.mac:
        raise HostError(
            f"{vtep.name} does not keep the MAC address {vtep.mac.hex(':')}: another program changes it; systemd-udevd "
            "does, unless a .link file for flannel* says MACAddressPolicy=none"
        )
    return link["index"], done if made else [*done, *mended]


async def remove(ip: Any, name: str) -> bool:
    """Deletes the device with its addresses, routes, neighbours and forwarding entries; False if there was none."""
    with failing(f"remove {name}"):
        link = await rtnetlink.link(ip, ifname=name)
        if link is None:
            return False
        _refuse_other_kind(name, link)
        await ip.link("del", index=link["index"])
    return True


async def _make(ip: Any, vtep: Vtep) -> None:
    with failing(f"make {vtep.name}"):
        underlay = await rtnetlink.link(ip, ifname=vtep.underlay)
        if underlay is None:
            raise HostError(f"cannot make {vtep.name}: interface {vtep.underlay} is gone")
        local = "vxlan_local" if vtep.local.version == 4 else "vxlan_local6"
        gbp = {"vxlan_gbp": True} if vtep.gbp else {}  # a flag: to be there is to be set
        await ip.link(
            "add",
            ifname=vtep.name,
            kind="vxlan",
            address=vtep.mac.hex(":"),
            mtu=vtep.mtu,
            vxlan_id=vtep.vni,
            vxlan_link=underlay["index"],
            vxlan_port=vtep.port,
            vxlan_learning=int(vtep.learning),
            **{local: str(vtep.local)},
            **gbp,
        )


async def _mend(ip: Any, vtep: Vtep, link: Any, *, tidy: bool) -> AsyncIterator[str]:
    """Cures every difference that can be cured on a living device; says of each what it was."""
    name, index = vtep.name, link["index"]
    if _mac(link) != vtep.mac:
        await rtnetlink.change_link(ip, index, ("IFLA_ADDRESS", vtep.mac.hex(":")))
        yield f"{name} had the MAC address {_mac(link).hex(':')}"
    async for what in kernel_device.mend(ip, vtep, link, tidy=tidy):
        yield what


async def _unfit(ip: Any, vtep: Vtep, link: Any) -> str:
    def said(name: str) -> Any:
        return link.get(("linkinfo", "data", f"IFLA_VXLAN_{name}"))

    underlay = await rtnetlink.link(ip, ifname=vtep.underlay)
    local = said("LOCAL") or said("LOCAL6")
    compared = (
        ("VNI", said("ID"), vtep.vni),
        ("interface", said("LINK") or None, underlay and underlay["index"]),
        ("local address", local and ip_address(local), vtep.local),
        ("port", said("PORT"), vtep.port),
        ("learning", bool(said("LEARNING")), vtep.learning),
        ("GBP", bool(said("GBP")), vtep.gbp),
        ("group", said("GROUP") or said("GROUP6") or None, None),
        ("l2miss", bool(said("L2MISS")), False),
        ("external mode", bool(said("COLLECT_METADATA")), False),
    )
    lenient = ("interface", "local address")  # as with flannel, a device that has none of it fits
    for what, there, wanted in compared:
        if there != wanted and not (what in lenient and None in (there, wanted)):
            return f"the {what} is {there}, expected {wanted}"
    return ""


def _refuse_other_kind(name: str, link: Any) -> None:
    if (kind := kernel_device.kind(link)) != "vxlan":
        raise HostError(
            f"{name} is a {kind or 'hardware'} device, expected a VXLAN: delete it, or choose another Backend.VNI"
        )


def _mac(link: Any) -> bytes:
    return bytes.fromhex((link.get_attr("IFLA_ADDRESS") or "").replace(":", ""))
