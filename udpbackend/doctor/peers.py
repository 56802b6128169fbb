"""Which of the other nodes are asked, and what they are called.

Pure. Peers that do not answer or were not heard of lately come first: they are what one looks for. Of more peers than
can be asked at once chance decides, so that another run asks others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from udpbackend.findings.finding import NotChecked
from udpbackend.model import Prefix
from udpbackend.observe.report import Peer, age, rank

ASKED = 20
"""As many peers are asked, at once."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A peer as the checks need it."""

    peer: Peer
    public_ip: IPv4Address
    subnet: Prefix
    """Its first IPv4 subnet."""

    @property
    def overlay(self) -> IPv4Address:
        """What its end of the overlay answers to."""
        return IPv4Address(self.subnet.address)

    def __str__(self) -> str:
        return called(self.peer)


def called(peer: Peer) -> str:
    """Name and public IP, as far as there is a name."""
    return f"{peer.node} ({peer.public_ip})" if peer.node else peer.public_ip


def heard(peer: Peer) -> str:
    """When the daemon last had a good packet of it."""
    return "never heard of" if peer.silent_s is None else f"last heard of {age(peer.silent_s)} ago"


def choose(peers: Sequence[Peer], most: int = ASKED) -> tuple[list[Asked], list[NotChecked]]:
    """Those to ask, and a word about those that are not."""
    able = [Asked(peer, IPv4Address(peer.public_ip), subnet) for peer in peers if (subnet := _ipv4_subnet(peer))]
    random.shuffle(able)
    able.sort(key=lambda it: rank(it.peer))
    if len(able) <= most:
        return able, []
    return able[:most], [NotChecked(f"{len(able) - most} of {len(able)} peers were not asked, {most} are at a time")]


def _ipv4_subnet(peer: Peer) -> Prefix | None:
    found = (Prefix.parse(text) for text in peer.subnets)
    return next((subnet for subnet in found if subnet.version == 4), None)
