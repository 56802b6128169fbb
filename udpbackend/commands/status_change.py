"""Two status documents of one daemon compared: each peer's rates, and what has changed in between.

Pure. Must not know how it is shown beyond one line of text for each change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from udpbackend.observe.report import Peer, Report, age

PEERS_NAMED = 5
"""Of those that came or went; the rest is a number."""


class PeerRates(NamedTuple):
    """A peer's traffic between the two looks, in inner packets and bits a second."""

    tx_packets: float = 0.0
    rx_packets: float = 0.0
    tx_bits: float = 0.0
    rx_bits: float = 0.0


class Change(NamedTuple):
    """From one look to the next."""

    seconds: float
    rates: dict[str, PeerRates]
    """By public IP."""
    lines: list[str]
    """What else is different, a sentence each."""


def compare(before: Report, after: Report) -> Change | None:
    """None where there is nothing to compare: the daemon has been started anew, or no time has passed."""
    seconds = after.uptime_s - before.uptime_s
    if before.started_at != after.started_at or seconds <= 0:
        return None
    known = {peer.public_ip: peer for peer in before.peers}
    rates = {peer.public_ip: _rates(known.get(peer.public_ip), peer, seconds) for peer in after.peers}
    return Change(seconds, rates, list(_lines(before, after)))


def _rates(before: Peer | None, after: Peer, seconds: float) -> PeerRates:
    if before is None:
        return PeerRates()
    return PeerRates(
        max(0, after.tx_packets - before.tx_packets) / seconds,
        max(0, after.rx_packets - before.rx_packets) / seconds,
        max(0, after.tx_bytes - before.tx_bytes) * 8 / seconds,
        max(0, after.rx_bytes - before.rx_bytes) * 8 / seconds,
    )


def _lines(before: Report, after: Report) -> Iterator[str]:
    if after.verdict.state != before.verdict.state:
        yield f"{before.verdict.state} became {after.verdict.state}"
    old, new = ({peer.public_ip: peer for peer in report.peers} for report in (before, after))
    if all(report.peers_total <= len(report.peers) for report in (before, after)):  # else others may be shown now
        yield from _named("new", [new[it] for it in new.keys() - old.keys()])
        yield from _named("gone", [old[it] for it in old.keys() - new.keys()])
    for address in new.keys() & old.keys():
        if new[address].path_mtu != old[address].path_mtu:
            yield f"{_called(new[address])}: path MTU {new[address].path_mtu or 'no longer narrow'}"
    for name, was, now in _losses(before, after):
        yield f"{name} +{now - was}"
    if set(after.offloads) != set(before.offloads):
        yield f"offloads {','.join(after.offloads) or 'none'}, were {','.join(before.offloads) or 'none'}"
    if after.routes != before.routes:
        yield f"routes {before.routes} became {after.routes}"


def _losses(before: Report, after: Report) -> Iterator[tuple[str, int, int]]:
    """Counters of what was lost or refused, and of the kernel, that have grown."""
    counted = {it.name: it.value for it in before.counters} | {it.name: it.value for it in before.kernel}
    lost = [it for it in after.counters if it.kind == "dropped" or (it.kind == "note" and it.cure)]
    now = {it.name: it.value for it in lost} | {it.name: it.value for it in after.kernel}
    for name, value in now.items():
        if value > counted.get(name, 0):
            yield name, counted.get(name, 0), value


def _named(what: str, peers: list[Peer]) -> Iterator[str]:
    if peers:
        names = sorted(map(_called, peers))
        more = f" and {len(names) - PEERS_NAMED} more" if len(names) > PEERS_NAMED else ""
        yield f"{what}: {', '.join(names[:PEERS_NAMED])}{more}"


def _called(peer: Peer) -> str:
    return f"peer {peer.node} ({peer.public_ip})" if peer.node else f"peer {peer.public_ip}"


def title(change: Change) -> str:
    """Over the lines of a change."""
    return f"changed in the last {age(change.seconds) if change.seconds >= 1 else f'{change.seconds:.1f}s'}:"
