"""What every overlay device of the kernel's own has on it: its MTU, our alias, its address, and no ear for routers.

Owns the mending of these where the device stands, so that no connection is disturbed. Must not know what kind of
tunnel it is, how it is made, or what leads to the peers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any, Protocol

from udpbackend.host import rtnetlink
from udpbackend.host.mark import ALIAS, MARK
from udpbackend.model import WIDTH, Prefix

CONF = Path("/proc/sys/net/ipv6/conf")


class Carrier(Protocol):
    """What a device should be, in all that does not depend on its kind."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def mtu(self) -> int:
        """In bytes, of the packets inside."""

    @property
    def address(self) -> IPv4Address | IPv6Address:
        """The base address of this node's subnet; the device carries it as a /32 or /128."""

    @property
    def network(self) -> Prefix:
        """The overlay network: any other address inside it is of an earlier subnet."""


async def mend(ip: Any, wanted: Carrier, link: Any, *, tidy: bool) -> AsyncIterator[str]:
    """Cures every difference; says of each what it was. `link` is the device as it was read.

    `tidy` removes the addresses of earlier subnets: at a start only, since what someone has added later is not ours.
    """
    name, index = wanted.name, link["index"]
    if (mtu := link.get_attr("IFLA_MTU")) != wanted.mtu:
        await rtnetlink.change_link(ip, index, ("IFLA_MTU", wanted.mtu))
        yield f"{name} had the MTU {mtu} instead of {wanted.mtu}"
    if not (link.get_attr("IFLA_IFALIAS") or "").startswith(MARK):
        await rtnetlink.change_link(ip, index, ("IFLA_IFALIAS", ALIAS))
        yield f"{name} did not have our alias"
    if _listens_to_routers(name):
        yield f"{name} took router advertisements"
    if not link["flags"] & rtnetlink.IFF_UP:
        await rtnetlink.change_link(ip, index, up=True)
        yield f"{name} was down"
    async for what in _addresses(ip, wanted, index, tidy=tidy):
        yield what


def kind(link: Any) -> str:
    """What the kernel calls this kind of device; empty for hardware, and for no device."""
    return (link and link.get(("linkinfo", "kind"))) or ""


async def _addresses(ip: Any, wanted: Carrier, index: int, *, tidy: bool) -> AsyncIterator[str]:
    version = wanted.address.version
    held = await rtnetlink.addresses(ip, index, AF_INET if version == 4 else AF_INET6)
    there = {(ip_address(it.get_attr("IFA_LOCAL") or it.get_attr("IFA_ADDRESS")), it["prefixlen"]) for it in held}
    right = (wanted.address, WIDTH[version])
    if right not in there:
        more = {"flags": rtnetlink.IFA_F_NODAD} if version == 6 else {}
        await ip.addr("add", index=index, address=str(wanted.address), prefixlen=WIDTH[version], **more)
        yield f"{wanted.name} lacked its address {wanted.address}"
    for address, bits in there - {right} if tidy else ():
        if wanted.network.holds(address):
            await ip.addr("delete", index=index, address=str(address), prefixlen=bits)
            yield f"{wanted.name} had the address {address}/{bits} of an earlier subnet"


def _listens_to_routers(name: str) -> bool:
    """Sees to it that the device takes no router advertisements, where it has IPv6; whether it did before."""
    setting = CONF / name / "accept_ra"
    try:
        if setting.read_text(encoding="ascii").strip() == "0":
            return False
        setting.write_text("0", encoding="ascii")
    except OSError:
        return False  # without IPv6 there is nothing to take, and a container's /proc/sys may be read-only
    return True
