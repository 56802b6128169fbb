"""The command `trace`, which says what happens to a packet to an address, and why; then sends one and watches it.

Owns its flags, the real packet and the form of the output. The steps are the doctor's journey. The packet is an echo
request of this host; where the way leads to another node, our own counters are read before and after it, and with
--peer-port those of the other node, which are asked for through the overlay. Other traffic moves the same counters:
then they show more than one. Exit status: 0 it arrives, 1 it does not, 2 usage, 3 no daemon answers.

With -o json the output is one object, to which fields are only ever added within `schema` 1: `target`, `steps` (each
`what`, `source`, `wrong`), `packet` (`rtt_s`, `error`, `counters`, `there`; null with --dry), `arrives`, `verdict`.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from udpbackend.commands.parser import Parser, seconds
from udpbackend.commands.status import ask, given
from udpbackend.commands.table import Palette, printable, table
from udpbackend.doctor.echo import Echo
from udpbackend.doctor.facts import CniFolders, gather
from udpbackend.doctor.journey import Address, Journey, Step, follow, moved
from udpbackend.host.netlink import Netlink
from udpbackend.model import Prefix
from udpbackend.observe.report import Report
from udpbackend.settings import Settings

PEER_S = 2.0
PEER_COUNTERS = ("udpbackend_rx_received_packets_total", "udpbackend_rx_packets_total", "udpbackend_tx_packets_total")


class Packet(msgspec.Struct, frozen=True):
    """What became of a real one."""

    rtt_s: float | None
    error: str
    counters: list[tuple[str, int]]
    there: list[tuple[str, int]]
    """The other node's, where it could be asked."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found."""

    schema: int = 1
    target: str
    steps: list[Step]
    packet: Packet | None
    arrives: bool
    verdict: str


def run(argv: Sequence[str]) -> int:
    """Follows, sends, prints, and gives the exit status."""
    options = _parser().parse_args(argv)
    settings = Settings.read(given(vars(options), ("subnet_file", "status_socket"), os.environ))
    found = asyncio.run(_trace(settings, options))
    if options.output == "json":
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print("\n".join(as_text(found, Palette.choose(options.color, sys.stdout))))
    return int(not found.arrives)


async def _trace(settings: Settings, options: argparse.Namespace) -> Trace:
    report = ask(settings.status_socket)

    async def again() -> Report:
        return ask(settings.status_socket)

    async with Netlink() as netlink:
        facts = await gather(settings, CniFolders(), netlink, again)
        journey = await follow(facts, report, options.target, options.pod)
    packet = None
    if not options.dry and isinstance(options.target, IPv4Address):
        packet = await _send(settings, options, journey)
    arrives = journey.end is None and (packet is None or packet.rtt_s is not None)
    return Trace(
        target=str(options.target),
        steps=journey.steps,
        packet=packet,
        arrives=arrives,
        verdict=_verdict(options, journey, packet),
    )


async def _send(settings: Settings, options: argparse.Namespace, journey: Journey) -> Packet:
    """One echo request of this host, whatever the steps say: the counters tell where it ends."""
    there_before = _there(journey, options.peer_port)
    before = ask(settings.status_socket)
    async with Echo() as echo:
        answer = await echo.ask(options.target, tries=1, wait_s=options.timeout)
    after = ask(settings.status_socket)
    there_after = _there(journey, options.peer_port)
    counters = moved(before, after, journey.peer) if journey.peer and after.counters else []
    there = [(name, there_after[name] - value) for name, value in there_before.items() if name in there_after]
    return Packet(answer.rtt_s, answer.error, counters, there)


def _there(journey: Journey, port: int) -> dict[str, int]:
    """Counters of the other node, by its /metrics, asked at its end of the overlay; empty where nobody answers."""
    if not port or journey.peer is None:
        return {}
    subnet = next(it for it in map(Prefix.parse, journey.peer.subnets) if it.version == 4)
    connection = http.client.HTTPConnection(str(subnet.base), port, timeout=PEER_S)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    except (OSError, http.client.HTTPException):
        return {}
    finally:
        connection.close()
    words = [line.split() for line in lines if line.startswith(PEER_COUNTERS)]
    return {name.removeprefix("udpbackend_").removesuffix("_total"): int(float(value)) for name, value in words}


def _verdict(options: argparse.Namespace, journey: Journey, packet: Packet | None) -> str:
    if (end := journey.end) is not None:
        return f"a packet to {options.target} does not arrive: {end.what}"
    if packet is None:
        return f"nothing on this host stops a packet to {options.target}; none was sent"
    if packet.rtt_s is not None:
        return f"a packet to {options.target} arrives, and its answer came back after {packet.rtt_s * 1000:.2f} ms"
    if packet.error:
        return f"a packet to {options.target} could not be sent: {packet.error}"
    return f"a packet to {options.target} was sent and nothing came back: {_where(dict(packet.counters))}"


def _where(counters: dict[str, int]) -> str:
    """As far as our counters saw it."""
    if not counters:
        return "nobody has that address, it does not answer to echo requests, or the way back is closed"
    if drops := [name for name, value in counters.items() if "_drop_" in name and value]:
        return f"our counter {drops[0]} moved, `udp-backend status` says what cures it"
    if not counters["tx_received"]:
        return "it did not reach the daemon: a filter of this host, or flannel0's queue is full"
    if not counters["tx to the peer"]:
        return "the daemon has it and has not sent it"
    if not counters["rx from the peer"]:
        return "it left this host and the peer sent nothing: its path, its daemon, or nobody there has the address"
    return "the peer's packets come, but not this answer: nobody there has the address, or a filter there drops it"


def as_text(found: Trace, palette: Palette) -> list[str]:
    """The steps one by one, the counters, the sentence."""
    lines = []
    for number, step in enumerate(found.steps, 1):
        text = f"{number}. {printable(step.what)}"
        lines += [palette.paint(text, "bad") if step.wrong else text, f"   known from: {printable(step.source)}"]
    if found.packet and found.packet.counters:
        counters = [("here", *it) for it in found.packet.counters] + [("there", *it) for it in found.packet.there]
        lines += ["", *table(["SEEN-AT", "COUNTER", "MOVED"], [(at, name, f"+{by}") for at, name, by in counters])]
    return [*lines, "", palette.paint(printable(found.verdict), "good" if found.arrives else "bad")]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="udp-backend trace",
        description="Says what happens to a packet to an address, and why; then sends one echo request of this "
        "host and shows which counters it moves.",
        epilog="Exit status: 0 it arrives, 1 it does not, 2 usage, 3 no daemon answers.",
    )
    add = parser.add_argument
    add("target", metavar="IP", type=_address, help="of a pod, of another host, or of anything else")
    add("-from", "--from", dest="pod", metavar="POD-IP", type=_address, help="follow a packet of this host's pod")
    add("-dry", "--dry", action="store_true", help="send nothing")
    add("-W", "--timeout", type=seconds, default=1.0, metavar="SEC", help="for the answer (default 1)")
    add("-peer-port", "--peer-port", type=_port, default=0, metavar="PORT",
        help="the other node's --healthz-port, to see its counters too")  # fmt: skip
    add("-o", "--output", choices=("text", "json"), default="text", help="form of the output")
    add("-subnet-file", "--subnet-file", metavar="FILE", help="the daemon's, from which its socket is found")
    add("-status-socket", "--status-socket", metavar="FILE", help="the daemon's status socket")
    add("-color", "--color", choices=("auto", "always", "never"), default="auto", help="auto: on a terminal")
    return parser


def _address(text: str) -> Address:
    try:
        found: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected an IP address") from None
    return found


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a port, 1 to 65535")
    return int(text)
