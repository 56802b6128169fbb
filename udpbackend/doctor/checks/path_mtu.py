"""Whether packets of the overlay's full size get through to the other nodes.

The largest size that passes is measured for each peer. If the daemon has been told of a narrow path (ICMP fragmentation
needed), senders are told too and TCP gets along; if not, large packets vanish. Where small ones are lost as well, no
size is to blame: reach.py tells of that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from udpbackend.backends.backend import option_mtu
from udpbackend.backends.udp_config import MIN_MTU_BYTES
from udpbackend.backends.udp_mtu import IPV6_MIN_MTU_BYTES
from udpbackend.doctor import peers
from udpbackend.doctor.echo import Echo
from udpbackend.doctor.facts import Facts
from udpbackend.doctor.peers import Asked
from udpbackend.doctor.sizes import largest
from udpbackend.errors import HostError
from udpbackend.findings.finding import Finding, NotChecked, Results, count, named


class Narrow(NamedTuple):
    """A peer that full packets do not reach."""

    peer: Asked
    largest: int
    """That pass, in bytes of the inner packet."""


async def look(facts: Facts) -> Results:
    """Large packets against small ones."""
    if facts.running is None:
        return [NotChecked(f"{facts.why_not_running}, so no peer can be asked")]
    mtu = facts.running[1].overlay_mtu
    if facts.running[1].overlay_device is None or mtu is None:
        return [NotChecked(f"the backend {facts.running[0].backend} has no device that could be asked")]
    asked, unasked = peers.choose(facts.peers)
    async with Echo(dont_fragment=True) as echo:
        found = await asyncio.gather(*(_measure(echo, peer, mtu) for peer in asked))
    narrow = [it for it in found if isinstance(it, Narrow)]
    if unsure := found.count("unsure"):
        unasked = [*unasked, NotChecked(f"{unsure} of {len(asked)} peers do not answer every small packet either")]
    if not asked:
        unasked = [NotChecked("the daemon knows no other node")]
    learned = await _learned(facts) if narrow else {}
    least = IPV6_MIN_MTU_BYTES if facts.running[0].ipv6_subnet else MIN_MTU_BYTES
    return [*judge(narrow, learned, mtu, facts.running[0].backend, least), *unasked]


def judge(
    narrow: Sequence[Narrow], learned: Mapping[str, int], mtu: int, backend: str = "udp", least: int = MIN_MTU_BYTES
) -> list[Finding]:
    """`learned`: what the daemon knows of its peers' paths, in bytes of the outer packet by public IP.

    `least`: the smallest MTU that this overlay can have.
    """
    if not narrow:
        return []
    told = [it for it in narrow if str(it.peer.public_ip) in learned]
    lost = [it for it in narrow if it not in told]
    cure = _cure(min(it.largest for it in narrow), backend, least)
    findings = []
    if lost:
        what = f"large packets to {count(len(lost), 'peer')} vanish: the path is narrower than the overlay's MTU"
        silence = " and let ICMP type 3 code 4 through to the nodes"
        findings.append(Finding("part", what, _evidence(lost, mtu), cure + silence))
    if told:
        what = f"the path to {count(len(told), 'peer')} is narrower than the overlay's MTU: large packets are cut"
        findings.append(Finding("risk", what, _evidence(told, mtu), cure))
    return findings


def _cure(largest: int, backend: str, least: int) -> str:
    if largest < least:
        return f"widen the path: an overlay's MTU cannot be less than {least} bytes here"
    return (
        f"set Backend.MTU to {option_mtu(backend, largest)} in the network's configuration and restart the daemons, "
        "then make the pods again; or widen the path"
    )


def _evidence(narrow: Sequence[Narrow], mtu: int) -> str:
    return named([f"{it.peer} answers {it.largest} bytes with DF, not {mtu}" for it in narrow])


async def _measure(echo: Echo, peer: Asked, mtu: int) -> Narrow | str:
    """A Narrow, or "unsure", or "" where all is well."""
    passes = await largest(echo, peer.overlay, mtu)
    if passes is None:
        return "unsure"
    return "" if passes == mtu else Narrow(peer, passes)


async def _learned(facts: Facts) -> dict[str, int]:
    """Asked anew: what the daemon knows it may have learned from our own requests."""
    known = facts.peers
    with suppress(HostError):
        known = (await facts.ask()).peers
    return {peer.public_ip: peer.path_mtu for peer in known if peer.path_mtu is not None}
