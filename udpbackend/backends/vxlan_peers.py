"""What vxlan nodes tell each other in their leases, and the ways to them that follow from it.

Owns the JSON of BackendData and the MAC addresses in it. Pure: must not know the kernel.

A peer is reached as flannel does it: its subnet by way of the subnet's base address, that address by a neighbour entry
at the peer's MAC, the MAC by a forwarding entry at the peer's outer address. So a node needs nothing of a peer but its
MAC. Where a registry has no place for one, every node works it out from the VNI and the subnet.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from udpbackend.backends.peers import Peer, not_reached
from udpbackend.errors import ConfigError
from udpbackend.gojson import Fields, decode, shown
from udpbackend.host.entries import Forward, Neighbour, Route
from udpbackend.host.reconcile import Way
from udpbackend.model import Prefix

MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}|[0-9a-f]{2}(-[0-9a-f]{2}){5}", re.IGNORECASE)


class Reached(NamedTuple):
    """A peer that can be reached."""

    who: str
    subnet: Prefix
    outer: bytes
    """The address packets are sent to, in network byte order."""
    mac: bytes


def backend_data(vni: int, mac: bytes) -> bytes:
    """What a node says of itself, to the byte as flannel does."""
    return json.dumps({"VNI": vni, "VtepMAC": mac.hex(":")}, separators=(",", ":")).encode()


def said_mac(said: bytes, vni: int) -> bytes:
    """The MAC in what a node says of itself. Raises ConfigError that says what is wrong with it."""
    fields = Fields(decode(said))
    if (its := fields.whole("VNI")) not in (None, vni):
        raise ConfigError(f"its VNI is {its}, expected {vni}")
    text = fields.string("VtepMAC")
    if not MAC.fullmatch(text):
        raise ConfigError(f"VtepMAC: expected a MAC address, got {shown(text) if text else 'nothing'}")
    mac = bytes.fromhex(re.sub("[:-]", "", text))
    if mac[0] & 1 or not any(mac):
        raise ConfigError(f"VtepMAC: expected the address of one device, got {shown(text)}")
    return mac


def derived_mac(vni: int, subnet: Prefix) -> bytes:
    """The MAC that every node takes a node to have whose lease cannot say it. Must stay as it is for ever."""
    return _local(hashlib.sha256(f"udpbackend vxlan {vni} {subnet}".encode()).digest()[:6])


def random_mac() -> bytes:
    """For a node that may say what it likes."""
    return _local(os.urandom(6))


def mac_of(said: bytes | None, vni: int, subnet: Prefix) -> bytes:
    """A node's MAC by its lease. Raises ConfigError where the lease says something that is no good."""
    return derived_mac(vni, subnet) if said is None else said_mac(said, vni)


def reached(peers: Iterable[Peer], vni: int, own_mac: bytes) -> tuple[list[Reached], list[str]]:
    """The peers that can be reached, and why others cannot.

    `peers` come in the order of their leases' age. Of two that say one MAC the newer is reached: a node that has moved
    to another address says the MAC it had, and its old lease lasts for a day.
    """
    readable: list[Reached] = []
    problems: list[str] = []
    for peer in peers:
        try:
            mac = mac_of(peer.said, vni, peer.subnet)
        except ConfigError as error:
            problems.append(not_reached(peer, error))
            continue
        if peer.outer is None:
            problems.append(not_reached(peer, "its lease has no PublicIPv6"))
        elif mac == own_mac:
            problems.append(not_reached(peer, f"its VtepMAC {mac.hex(':')} is that of this host too"))
        else:
            readable.append(Reached(peer.who, peer.subnet, peer.outer, mac))
    newest = {it.mac: it for it in readable}
    found = []
    for one in readable:
        other = newest[one.mac]
        if one.outer == other.outer:  # one node may have two leases for a while, at one address
            found.append(one)
        else:
            why = f"its VtepMAC {one.mac.hex(':')} is that of {other.who} ({other.subnet}) too, whose lease is newer"
            problems.append(not_reached(one, why))
    return found, problems


def ways(peers: Iterable[Reached], device: int, direct: Mapping[bytes, int]) -> list[Way]:
    """How each peer is reached through the device of that index.

    `direct`: outer addresses on a link of this host, and that link: they need no tunnel.
    """
    return [
        Way(Route.to(it.subnet, it.outer, direct[it.outer]))
        if it.outer in direct
        else Way(
            Route.to(it.subnet, it.subnet.packed(), device, onlink=True),
            (Neighbour(it.subnet.packed(), it.mac, device), Forward(it.mac, it.outer, device)),
        )
        for it in peers
    ]


def _local(mac: bytes) -> bytes:
    """The same, marked as locally administered and of one device (IEEE 802)."""
    return bytes((mac[0] & 0xFE | 0x02,)) + mac[1:]
