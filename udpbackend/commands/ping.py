"""The command `ping`, which asks other nodes through the overlay and beside it: loss, round trip, largest packet.

Owns its flags, the measurement of one peer and the two forms of its output. Peers are those of the running daemon,
asked by the client of `status`; requests are the doctor's. Exit status: 0 all answered everything, 1 something was lost
or does not pass whole, 2 usage, 3 no daemon answers.

With -o json the output is one object, to which fields are only ever added within `schema` 1: `peers`, each with `node`,
`public_ip`, `overlay_address`, `mtu` and `largest` (bytes of the inner packet, null where nothing came back, or where
small ones are lost like large ones), and `overlay` and `host`, each with `sent`, `received`, `rtt_min_s`, `rtt_avg_s`,
`rtt_max_s` and `error`. `overlay` is null with a backend that has no device that could be asked.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from ipaddress import AddressValueError, IPv4Address

import msgspec

import udpbackend
from udpbackend.commands.parser import Parser, seconds
from udpbackend.commands.status import ask, given
from udpbackend.commands.table import Palette, table
from udpbackend.doctor.echo import Echo
from udpbackend.doctor.peers import Asked, choose
from udpbackend.doctor.sizes import largest
from udpbackend.errors import UsageError
from udpbackend.observe.report import Report
from udpbackend.settings import Settings

AT_ONCE = 32
"""Peers that are asked at a time."""


class Echoes(msgspec.Struct, frozen=True, kw_only=True):
    """What came of some requests to one address."""

    sent: int
    received: int
    rtt_min_s: float | None
    rtt_avg_s: float | None
    rtt_max_s: float | None
    error: str

    @property
    def whole(self) -> bool:
        """Whether nothing was lost."""
        return self.received == self.sent


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about a peer."""

    node: str
    public_ip: str
    overlay_address: str
    mtu: int | None
    largest: int | None
    overlay: Echoes | None
    host: Echoes

    @property
    def well(self) -> bool:
        """Whether everything came back, through the overlay where that can be asked."""
        if self.overlay is None:
            return self.host.whole
        return self.overlay.whole and self.largest == self.mtu


def run(argv: Sequence[str]) -> int:
    """Asks, prints, and gives the exit status."""
    options = _parser().parse_args(argv)
    settings = Settings.read(given(vars(options), ("subnet_file", "status_socket"), os.environ))
    report = ask(settings.status_socket)
    able, _ = choose(report.peers, most=len(report.peers))
    chosen = sorted(select(able, options.peer) if options.peer else able, key=lambda it: it.subnet)
    rows = asyncio.run(_measure_all(report, chosen, options, _progress(len(chosen))))
    if options.output == "json":
        document = {"schema": 1, "version": udpbackend.__version__, "peers": rows}
        print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
    else:
        print("\n".join(as_text(rows, Palette.choose(options.color, sys.stdout))))
    return int(not all(row.well for row in rows))


def select(able: Sequence[Asked], words: Sequence[str]) -> list[Asked]:
    """The peers that the words name: by node, public IP, or an address or prefix of theirs. UsageError otherwise."""
    found = []
    for word in words:
        matching = [it for it in able if _named(it, word)]
        if not matching:
            raise UsageError(f"no peer {word!r}: expected a node's name, its public IP, or an address in its subnet")
        found += [it for it in matching if it not in found]
    return found


def _named(it: Asked, word: str) -> bool:
    if word in (it.peer.node, it.peer.public_ip, *it.peer.subnets):
        return True
    try:
        return it.subnet.holds(IPv4Address(word))
    except AddressValueError:
        return False


async def _measure_all(
    report: Report, chosen: Sequence[Asked], options: argparse.Namespace, told: Callable[[], None]
) -> list[Row]:
    overlay = report.interface is not None and report.interface.overlay_device is not None
    mtu = report.interface.overlay_mtu if report.interface and overlay else None
    turn = asyncio.Semaphore(AT_ONCE)
    async with Echo() as plain, Echo(dont_fragment=True) as whole:

        async def measured(it: Asked) -> Row:
            async with turn:
                through = echoes(plain, it.overlay, options) if overlay else _nothing()
                inner, host = await asyncio.gather(through, echoes(plain, it.public_ip, options))
                size = await largest(whole, it.overlay, mtu) if mtu and inner and inner.received else None
            told()
            return Row(
                node=it.peer.node,
                public_ip=it.peer.public_ip,
                overlay_address=str(it.overlay),
                mtu=mtu,
                largest=size,
                overlay=inner,
                host=host,
            )

        return list(await asyncio.gather(*map(measured, chosen)))


async def _nothing() -> None:
    return None


async def echoes(echo: Echo, address: IPv4Address, options: argparse.Namespace) -> Echoes:
    """Asks `options.count` times, one request every `options.interval` seconds, whether answers come or not."""
    answers = await echo.several(address, options.count, pace_s=options.interval, wait_s=options.timeout)
    times = [it.rtt_s for it in answers if it.rtt_s is not None]
    return Echoes(
        sent=options.count,
        received=len(times),
        rtt_min_s=min(times, default=None),
        rtt_avg_s=sum(times) / len(times) if times else None,
        rtt_max_s=max(times, default=None),
        error=next((it.error for it in answers if it.error), ""),
    )


def as_text(rows: Sequence[Row], palette: Palette) -> list[str]:
    """A table of the peers, and a sentence."""
    if not rows:
        return ["the daemon knows no other node"]
    headers = ("PEER", "PUBLIC-IP", "OVERLAY", "LOSS", "RTT", "RTT-MAX", "LARGEST", "HOST-LOSS", "HOST-RTT")
    lines = table(
        headers,
        [
            (row.node, row.public_ip, row.overlay_address, *_times(row.overlay), _size(row), *_times(row.host)[:2])
            for row in rows
        ],
    )
    head, *body = lines
    painted = [line if row.well else palette.paint(line, "bad") for line, row in zip(body, rows, strict=True)]
    ill = sum(not row.well for row in rows)
    errors = {f"{row.node or row.public_ip}: {row.overlay.error}" for row in rows if row.overlay and row.overlay.error}
    said = f"{ill} of {len(rows)} peers lose packets or do not get them whole: `udp-backend doctor` says why"
    well = f"{len(rows)} of {len(rows)} peers answer everything, in every size"
    return [head, *painted, "", *sorted(errors), palette.paint(said, "bad") if ill else palette.paint(well, "good")]


def _times(found: Echoes | None) -> tuple[str | None, str | None, str | None]:
    if found is None:
        return None, None, None
    loss = f"{100 * (found.sent - found.received) / found.sent:.0f}%"
    if found.rtt_avg_s is None or found.rtt_max_s is None:
        return loss, None, None
    return loss, f"{found.rtt_avg_s * 1000:.2f}ms", f"{found.rtt_max_s * 1000:.2f}ms"


def _size(row: Row) -> str | None:
    return None if row.largest is None else f"{row.largest}/{row.mtu}"


def _progress(total: int) -> Callable[[], None]:
    """Called when a peer is done: shows how many are, where somebody looks."""
    done = 0
    shown = sys.stderr.isatty() and total > 1

    def told() -> None:
        nonlocal done
        done += 1
        if shown:
            sys.stderr.write("\r\x1b[K" if done == total else f"\r{done} of {total} peers asked\x1b[K")
            sys.stderr.flush()

    return told


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="udp-backend ping",
        description="Asks other nodes by echo requests: through the overlay (LOSS, RTT, the LARGEST packet that passes "
        "whole) and beside it (HOST-LOSS, HOST-RTT).",
        epilog="Exit status: 0 all answered everything, 1 something was lost or does not pass whole, 2 usage, "
        "3 no daemon answers.",
    )
    add = parser.add_argument
    add("peer", nargs="*", metavar="PEER", help="a node's name, its public IP, or an address in its subnet")
    add("-all", "--all", action="store_true", help="every peer, as without any PEER")
    add("-c", "--count", type=_count, default=5, metavar="N", help="requests to each (default 5)")
    add("-i", "--interval", type=seconds, default=0.2, metavar="SEC", help="between them (default 0.2)")
    add("-W", "--timeout", type=seconds, default=1.0, metavar="SEC", help="for an answer (default 1)")
    add("-o", "--output", choices=("text", "json"), default="text", help="form of the output")
    add("-subnet-file", "--subnet-file", metavar="FILE", help="the daemon's, from which its socket is found")
    add("-status-socket", "--status-socket", metavar="FILE", help="the daemon's status socket")
    add("-color", "--color", choices=("auto", "always", "never"), default="auto", help="auto: on a terminal")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 1 to 10000 requests")
    return int(text)
