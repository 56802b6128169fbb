"""A tunnel device that puts packets into plain UDP datagrams by FOU: is it there, does it fit, is all on it right.

Owns the device's making and its settings, and the FOU port that belongs to it, in both IP versions: `ipip` carries
IPv4, `sit` IPv6. Must not know peers: what leads to them is `reconcile`'s. The device has no remote address: the
gateway of a route is where its packets are sent to.

Theory of operation: what the kernel fixes when a device is made decides whether one that is there fits; one that does
not is made again. All else is mended where it stands, so that taking over a device disturbs no connection. A TUN of
ours under the same name is what the userspace dataplane has left; it gives way, unless a program holds it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET6
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from udpbackend.errors import HostError
from udpbackend.host import fou, kernel_device, mark, rtnetlink
from udpbackend.host.fou import FouPort
from udpbackend.host.netlink import failing
from udpbackend.model import Prefix

SUFFIX6 = "-v6"
"""IPv6 inside has a device of its own, called so behind the other's name: each of the kernel's tunnels carries one."""
KINDS = {4: "ipip", 6: "sit"}
"""By the IP version inside."""
PREFIXES = {"ipip": "IFLA_IPIP", "sit": "IFLA_SIT"}
MODULES = {"ipip": "ipip (CONFIG_NET_IPIP)", "sit": "sit (CONFIG_IPV6_SIT)"}
PROTOCOLS = {"ipip": 4, "sit": 41}
"""Of the packets inside, in an IPv4 header: with 0 an `ipip` device would take MPLS too."""
COMPATIBLE = Prefix(0, 96, 6)
"""::/96, RFC 4291, 2.5.5.1."""
TTL = 64
"""Of the outer packets: the inner one's could be too small to reach the peer."""
TOS_INHERIT = 1
ANYWHERE = IPv4Address(0)
ENCAP_FOU = 1
"""TUNNEL_ENCAP_FOU of linux/if_tunnel.h: for packets that go out it is GUE of version 1 as well."""
STRICT = 1
"""rp_filter: a packet's source must be reached through the device it came by (RFC 3704)."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What the device should be."""

    name: str
    local: IPv4Address
    """The source of its datagrams."""
    port: int
    """Of the peers, and the FOU port here."""
    address: IPv4Address | IPv6Address
    """The base address of this node's subnet; the device carries it as a /32 or /128."""
    network: Prefix
    mtu: int
    copy_dscp: bool = False
    strict: bool = True
    """Whether a packet must come from where the device leads to; of the two kinds only `ipip` can ask for it."""
    remote: IPv4Address = ANYWHERE
    """Where all its datagrams go; ANYWHERE: to the gateway of a packet's route."""

    @property
    def kind(self) -> str:
        """What the kernel calls such a device."""
        return KINDS[self.address.version]

    @property
    def fou_port(self) -> FouPort:
        """What receives."""
        return FouPort(self.port, self.local)


@dataclass(frozen=True, slots=True)
class Found:
    """What stands under the name."""

    index: int
    unfit: str
    """Why it cannot become what is wanted; empty if it can."""
    port: FouPort | None = None
    """That belongs to it, where it is one of ours."""


async def find(ip: Any, tunnel: Tunnel) -> Found | None:
    """What there is; HostError for what is somebody else's, or in use."""
    with failing(f"look at {tunnel.name}"):
        link = await rtnetlink.link(ip, ifname=tunnel.name)
    if link is None:
        return None
    if unfit := _unfit(tunnel, link):  # what is to the letter as we make it is ours, should its alias have been lost
        _refuse_others(tunnel.name, link)
    return Found(link["index"], unfit, sends_to(link))


async def ensure(ip: Any, tunnel: Tunnel, *, tidy: bool = False) -> tuple[int, list[str]]:
    """Makes the device and its FOU port what they should be: its index, and what had to be done.

    `tidy` removes the addresses of earlier subnets: at a start only, since what someone has added later is not ours.
    """
    done = []
    found = await find(ip, tunnel)
    if found is not None and found.unfit:
        with failing(f"remove {tunnel.name}, {found.unfit}"):
            await ip.link("del", index=found.index)
        done.append(f"removed {tunnel.name}, {found.unfit}")
        found = None
    if ensure_port(tunnel.fou_port):
        done.append(f"made the {tunnel.fou_port}")
    made = found is None
    if made:
        await _make(ip, tunnel)
        done.append(f"made {tunnel.name}, a tunnel by FOU ({tunnel.kind})")
    with failing(f"set up {tunnel.name}"):
        link = await rtnetlink.link(ip, ifname=tunnel.name)
        if link is None:
            raise HostError(f"{tunnel.name} was deleted while it was set up")
        mended = [what async for what in _mend(ip, tunnel, link, tidy=tidy)]
    return link["index"], done if made else [*done, *mended]


def ensure_port(port: FouPort) -> bool:
    """Makes the FOU port if it is not there; whether it was made."""
    with failing(f"make the {port}"):
        there = fou.ports()
        if port in there:
            return False
        try:
            fou.add(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise HostError(f"cannot make the {port}: {who_has(port, there)}") from error
    return True


def who_has(port: FouPort, there: list[FouPort]) -> str:
    """Why its UDP port is not to be had."""
    other = next((it for it in there if it.port == port.port), None)
    if other is None:
        return "another program listens on this UDP port: `ss -ulnp` names it"
    local = f" local {other.local}" if other.local else ""
    return f"another program has made the {other}: `ip fou del port {other.port}{local}` removes it"


def sends_to(link: Any) -> FouPort | None:
    """The FOU port that belongs to a device of ours; None for another device."""
    kind = kernel_device.kind(link)
    alias = link.get_attr("IFLA_IFALIAS") or ""
    if kind not in PREFIXES or not mark.ours(link.get_attr("IFLA_IFNAME"), alias):
        return None
    local, port = (link.get(("linkinfo", "data", f"{PREFIXES[kind]}_{name}")) for name in ("LOCAL", "ENCAP_DPORT"))
    return FouPort(port, IPv4Address(local)) if port and local else None


async def other_ends(ip: Any, local: IPv4Address) -> frozenset[bytes]:
    """Where the host's other tunnels of these kinds get packets from that could be taken for ours, in network order."""
    found = set()
    for kind, prefix in PREFIXES.items():
        for link in await rtnetlink.links_of_kind(ip, kind):
            own, remote = (link.get(("linkinfo", "data", f"{prefix}_{name}")) for name in ("LOCAL", "REMOTE"))
            if remote and IPv4Address(remote) != ANYWHERE and IPv4Address(own or 0) in (ANYWHERE, local):
                found.add(IPv4Address(remote).packed)
    return frozenset(found)


async def remove(ip: Any, name: str, port: FouPort | None = None) -> tuple[str, ...]:
    """Deletes a device of ours of these kinds, with its addresses and routes, and a FOU port; what was there, in words.

    The port is the device's own, or `port` where the device may be gone. A device of another kind is left alone.
    """
    words = []
    with failing(f"remove {name}"):
        link = await rtnetlink.link(ip, ifname=name)
        own = None if link is None else sends_to(link)
        if link is not None and own is not None:
            await ip.link("del", index=link["index"])
            words.append(f"{name}, the {kernel_device.kind(link)} tunnel of the kernel dataplane")
    for it in {it for it in (own, port) if it is not None}:
        with failing(f"remove the {it}"):
            if fou.delete(it):
                words.append(f"the {it}")
    return tuple(words)


async def _make(ip: Any, tunnel: Tunnel) -> None:
    prefix = tunnel.kind
    settings = {
        "local": str(tunnel.local),
        "remote": str(tunnel.remote),
        "ttl": TTL,
        "tos": TOS_INHERIT if tunnel.copy_dscp else 0,
        "pmtudisc": 1,
        "proto": PROTOCOLS[tunnel.kind],
        "encap_type": ENCAP_FOU,
        "encap_flags": 0,
        "encap_sport": 0,  # chosen by the packet's flow
        "encap_dport": tunnel.port,
    }
    with failing(f"make {tunnel.name}"):
        try:
            more = {f"{prefix}_{name}": value for name, value in settings.items()}
            await ip.link("add", ifname=tunnel.name, kind=tunnel.kind, **more)
        except NetlinkError as error:
            if (why := await _why_not(ip, tunnel, error.code)) is None:
                raise
            raise HostError(f"cannot make {tunnel.name}: {why}") from error


async def _why_not(ip: Any, tunnel: Tunnel, code: int) -> str | None:
    """What a kernel that makes no such device lacks, or who is in the way."""
    if code == errno.EOPNOTSUPP:
        return f"the kernel has no module {MODULES[tunnel.kind]}"
    if code == errno.EINVAL:
        return f"the kernel refuses FOU for {tunnel.kind} devices: it was built without CONFIG_NET_FOU_IP_TUNNELS"
    if code != errno.EEXIST:
        return None
    for link in await rtnetlink.links_of_kind(ip, tunnel.kind):
        said = (link.get(("linkinfo", "data", f"{PREFIXES[tunnel.kind]}_{name}")) for name in ("LOCAL", "REMOTE"))
        if kernel_device.kind(link) == tunnel.kind and tuple(said) == (str(tunnel.local), str(ANYWHERE)):
            return (
                f"{link.get_attr('IFLA_IFNAME')} ({tunnel.kind}) leads from {tunnel.local} to anywhere too, and "
                "the kernel has room for one: delete it, or run this network in userspace"
            )
    return os.strerror(code)


async def _mend(ip: Any, tunnel: Tunnel, link: Any, *, tidy: bool) -> AsyncIterator[str]:
    """Cures every difference that can be cured on a living device; says of each what it was."""
    name, index = tunnel.name, link["index"]
    mode = link.get(("af_spec", "AF_INET6", "IFLA_INET6_ADDR_GEN_MODE"))
    if mode not in (None, rtnetlink.ADDR_GEN_MODE_NONE):
        # A link-local address would send router solicitations into a tunnel that has nobody to answer them.
        await rtnetlink.change_link(ip, index, rtnetlink.no_ipv6_address())
        yield f"{name} made itself an IPv6 link-local address"
    if tunnel.strict and tunnel.kind == "ipip" and link.get(("af_spec", "AF_INET", "rp_filter")) != STRICT:
        await rtnetlink.change_link(ip, index, rtnetlink.rp_filter(STRICT))
        yield f"rp_filter of {name} was not strict"
    async for what in kernel_device.mend(ip, tunnel, link, tidy=tidy):
        yield what
    await _drop_self_made(ip, index)


async def _drop_self_made(ip: Any, index: int) -> None:
    """Takes off the IPv6 addresses that the kernel has given a device of itself.

    Every `sit` that comes up gets ::a.b.c.d/96, by whose route anybody's packets to ::/96 would go through the tunnel
    to whatever IPv4 address they name. A device whose MTU falls below 1280 and rises again gets a link-local one.
    """
    for held in await rtnetlink.addresses(ip, index, AF_INET6):
        address, bits = IPv6Address(held.get_attr("IFA_ADDRESS")), held["prefixlen"]
        if address.is_link_local or (bits == COMPATIBLE.bits and COMPATIBLE.holds(address)):
            await ip.addr("delete", index=index, address=str(address), prefixlen=bits)


def _unfit(tunnel: Tunnel, link: Any) -> str:
    kind = kernel_device.kind(link)
    if kind == "tun":
        return "the TUN of the userspace dataplane"
    if kind != tunnel.kind:
        return f"of the kind {kind}, expected {tunnel.kind}"

    def said(name: str) -> Any:
        return link.get(("linkinfo", "data", f"{PREFIXES[kind]}_{name}"))

    compared = (
        ("local address", said("LOCAL"), str(tunnel.local)),
        ("remote address", said("REMOTE") or str(ANYWHERE), str(tunnel.remote)),
        ("TTL", said("TTL"), TTL),
        ("TOS", said("TOS") or 0, TOS_INHERIT if tunnel.copy_dscp else 0),
        ("path MTU discovery", said("PMTUDISC"), 1),
        ("protocol", said("PROTO"), PROTOCOLS[kind]),
        ("encapsulation", said("ENCAP_TYPE"), ENCAP_FOU),
        ("encapsulation's flags", said("ENCAP_FLAGS") or 0, 0),
        ("source port", said("ENCAP_SPORT") or 0, 0),
        ("port", said("ENCAP_DPORT"), tunnel.port),
    )
    for what, there, wanted in compared:
        if there != wanted:
            return f"of which the {what} is {there}, expected {wanted}"
    return ""


def _refuse_others(name: str, link: Any) -> None:
    kind, alias = kernel_device.kind(link), link.get_attr("IFLA_IFALIAS") or ""
    if kind not in ("tun", *PREFIXES) or not alias.startswith(mark.MARK):
        raise HostError(
            f"{name} ({kind or 'hardware'}) was made by another program (its alias is {alias!r}, expected "
            f"one that begins with {mark.MARK!r}): stop that program and delete it, `ip link delete {name}`"
        )
    if link.get(("linkinfo", "data", "IFLA_TUN_NUM_QUEUES")):
        raise HostError(f"{name} is in use by another udp-backend: stop it first")
