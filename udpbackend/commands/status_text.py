"""A status document as text: the verdict first, then tables, then every packet that was lost and what cures it.

Pure: a report in, lines out. Must not know where the report comes from, nor the terminal but for its palette.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from udpbackend.commands.status_change import Change, PeerRates, title
from udpbackend.commands.table import Palette, binary, decimal, printable, table
from udpbackend.observe.report import Counter, KernelDrops, Movers, Peer, Report, Terms, age, rank

PEERS_SHOWN = 20
"""Rows of the peer table without -o wide."""

COLOURS = {"ready": "good", "degraded": "bad", "starting": "warn"}

IF_KILLED = {"service manager": "packets-wait", "device": "packets-lost", "kernel": "packets-go-on"}
"""What happens until the next start, by who keeps the network."""


def render(report: Report, *, wide: bool, palette: Palette, change: Change | None = None) -> list[str]:
    """The whole text as lines. `change`: what is different from an earlier look; peers are then sorted by traffic."""
    lines = [palette.paint(printable(report.verdict.text), COLOURS[report.verdict.state]), ""]
    parts = [_network(report, wide=wide), _interface(report), _peers(report, change, wide=wide)]
    if change and change.lines:
        parts.insert(0, [palette.paint(title(change), "strong"), *(f"  {printable(it)}" for it in change.lines)])
    if report.ignored:
        parts.append(_ignored(report))
    if report.counters:  # otherwise the kernel moves the packets, and has its own counters (ip -s link)
        law = [_law(name, terms, palette) for name, terms in (("tx", report.law.tx), ("rx", report.law.rx))]
        parts += [[*_traffic(report), *_movers(report)], [*law, *_losses(report, palette)]]
    for part in parts:
        lines += [*part, ""]
    return lines[:-1]


def _network(report: Report, *, wide: bool) -> list[str]:
    network, registry = report.network, report.registry
    since = None if registry.age_s is None else age(registry.age_s)
    row = {
        "NODE": report.node,
        "NETWORK": network and _both(network.network, network.ipv6_network),
        "SUBNET": network and _both(network.subnet, network.ipv6_subnet),
        "BACKEND": network and network.backend,
        "PORT": network and network.port,
        "REGISTRY": registry.kind,
        "VIEW-AGE": since,
        "ROUTES": report.routes,
        "AGE": age(report.uptime_s),
    }
    if wide:
        row |= {
            "DATAPLANE": network and network.dataplane,
            "SOURCE-CHECK": network and network.source_check,
            "REGISTRY-SOURCE": registry.source,
            "REVISION": registry.revision,
            "LOOP-LAG": f"{report.loop.lag_s * 1000:.1f}ms",
            "IF-KILLED": IF_KILLED.get(report.restart.kept_by or ""),
            "CAPABILITIES": ",".join(report.rights.capabilities) if report.rights else None,
            "VERSION": report.version,
        }
    return table(list(row), [list(row.values())])


def _both(ipv4: str | None, ipv6: str | None) -> str:
    return ",".join(filter(None, (ipv4, ipv6)))


def _interface(report: Report) -> list[str]:
    headers = ("INTERFACE", "ADDRESS", "PUBLIC-IP", "MTU", "OVERLAY", "OVERLAY-ADDRESS", "OVERLAY-MTU", "OFFLOADS")
    offloads = ",".join(report.offloads)
    found = report.interface
    if found is None:
        return table(headers, [[None] * 7 + [offloads]])
    device = _both(found.overlay_device, found.overlay_ipv6_device)
    overlay = (device, _both(found.overlay_address, found.overlay_ipv6_address), found.overlay_mtu)
    return table(headers, [[found.name, found.address, found.public_ip, found.mtu, *overlay, offloads]])


def _peers(report: Report, change: Change | None, *, wide: bool) -> list[str]:
    """With more peers than are shown, those that do not answer come first, then the silent: one looks for them."""
    peers = report.peers
    if not peers:
        return ["no peers"]
    rates = change.rates if change and report.counters else {}
    if rates:
        peers = sorted(peers, key=lambda peer: -sum(rates[peer.public_ip]))
    elif not wide and len(peers) > PEERS_SHOWN:
        peers = sorted(peers, key=rank)
    shown = peers if wide else peers[:PEERS_SHOWN]
    rows = [_peer(peer, wide=wide, counted=bool(report.counters)) | _rates(rates.get(peer.public_ip)) for peer in shown]
    lines = table(list(rows[0]), [list(row.values()) for row in rows])
    more = max(report.peers_total, len(peers)) - len(shown)
    return [*lines, f"... and {more} more, -o wide shows all"] if more else lines


def _rates(found: PeerRates | None) -> dict[str, object]:
    if found is None:
        return {}
    return {
        "TX-PACKETS/S": f"{found.tx_packets:.0f}",
        "TX-BITS/S": decimal(found.tx_bits, "b/s"),
        "RX-PACKETS/S": f"{found.rx_packets:.0f}",
        "RX-BITS/S": decimal(found.rx_bits, "b/s"),
    }


def _ignored(report: Report) -> list[str]:
    rows = [[it.node, it.public_ip, it.backend, ",".join(it.subnets)] for it in report.ignored]
    return table(["IGNORED", "PUBLIC-IP", "BACKEND", "SUBNETS"], rows)


def _peer(peer: Peer, *, wide: bool, counted: bool) -> dict[str, object]:
    row: dict[str, object] = {"PEER": peer.node, "PUBLIC-IP": peer.public_ip, "SUBNETS": ",".join(peer.subnets)}
    if not counted:
        return row
    row |= {
        "TX-PACKETS": peer.tx_packets,
        "RX-PACKETS": peer.rx_packets,
        "PATH-MTU": peer.path_mtu,
        "LAST-SEEN": None if peer.silent_s is None else age(peer.silent_s),
        "STATE": peer.state,
    }
    if wide:
        row |= {
            "PORT": peer.port,
            "TX-BYTES": binary(peer.tx_bytes),
            "RX-BYTES": binary(peer.rx_bytes),
            "TX-DROPPED": peer.tx_dropped,
            "PATH-MTU-LEFT": None if peer.path_mtu is None else age(peer.path_mtu_left_s),
        }
    return row


def _traffic(report: Report) -> list[str]:
    rates, law = report.rates, report.law
    size = {counter.name: counter.value for counter in report.counters}
    headers = ("DIRECTION", "PACKETS", "BYTES", "PACKETS/S", "BITS/S")
    rows = (
        ("tx", law.tx.delivered, size.get("tx_bytes", 0), rates.tx_packets_per_s, rates.tx_bits_per_s),
        ("rx", law.rx.delivered, size.get("rx_bytes", 0), rates.rx_packets_per_s, rates.rx_bits_per_s),
    )
    return table(
        headers,
        [
            (name, packets, binary(total), f"{per_s:.0f}", decimal(bits, "b/s"))
            for name, packets, total, per_s, bits in rows
        ],
    )


def _movers(report: Report) -> Iterator[str]:
    it = report.movers
    if it is not None:
        who = f"{it.threads} thread{'s' * (it.threads > 1)} of their own" if it.threads else "the event loop"
        why = f": {printable(it.refused)}" if it.refused else ""
        session = "" if it.session_nice is None else f" in a session of nice {it.session_nice}"
        crowd = ", beside a program that keeps the core" if it.crowded else ""
        yield f"moved by {who}, nice {it.nice}{session}{crowd}{why}{_filter(it)}"


def _filter(movers: Movers) -> str:
    if movers.unfiltered:
        return f"; without a seccomp filter: {printable(movers.unfiltered)}"
    return "; under a seccomp filter" if movers.filtered else ""


def _law(name: str, terms: Terms, palette: Palette) -> str:
    rest = f"unexplained {terms.unexplained}"
    return (
        f"{name}: received {terms.received} = delivered {terms.delivered} + dropped {terms.dropped}"
        f" + in flight {terms.in_flight}, {rest if terms.unexplained == 0 else palette.paint(rest, 'bad')}"
    )


def _losses(report: Report, palette: Palette) -> Iterator[str]:
    counted = [c for c in report.counters if c.value and (c.kind == "dropped" or (c.kind == "note" and c.cure))]
    yield from _with_cures("dropped or refused by udp-backend:", counted, palette)
    yield from _with_cures("dropped by the kernel:", [c for c in report.kernel if c.value], palette)
    if report.last_error is not None:
        yield ""
        last = report.last_error_info
        told = f" ({last.counter}, {age(last.age_s)} ago)" if last is not None else ""
        yield f"last error: {printable(report.last_error)}{told}"


def _with_cures(title: str, found: Sequence[Counter | KernelDrops], palette: Palette) -> Iterator[str]:
    if not found:
        return
    yield ""
    yield palette.paint(title, "strong")
    for counter in found:
        yield f"  {counter.name}  {palette.paint(str(counter.value), 'warn')}  {counter.meaning}"
        if counter.cure:
            yield f"    cure: {counter.cure}"
