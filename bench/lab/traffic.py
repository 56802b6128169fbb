"""ping and iperf3 between namespaces.

Owns their command lines and the way to a server that is certainly listening; what they print is read in `parse`.
Knows no hosts, no daemons and no overlay: a namespace and an address are enough.
"""

import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from bench.lab import parse
from bench.lab.netns import Namespace
from bench.lab.process import Process
from bench.lab.wait import LabError, until

PORT = 5201
"""iperf3's own default."""

SLACK_S = 15.0
"""What a run may take beyond its duration: connecting, the exchange of results, a busy machine."""

LATE_S = 2
"""How long ping waits for an answer; what is later counts as lost."""

UDP_PAYLOAD_BYTES = 1400
"""Fits the overlay's 1472 with room: 1428 with the inner headers."""

URGENT = ("sh", "-c", 'echo -10 2>/dev/null >/proc/self/autogroup; exec nice -n -10 "$@"', "urgent")
"""Words before a command that make it so: itself, and its session where the kernel groups programs by session."""

WINDOW_BYTES = 4 << 20
"""Of the buffers of an urgent program, where the kernel grants so much: 70 ms at 500 Mbit/s. Usual are 2 ms."""

T = TypeVar("T")

_serial = itertools.count()


def ping(  # noqa: PLR0913  (these are ping's own options)
    namespace: Namespace,
    address: str,
    *,
    count: int = 5,
    size: int | None = None,
    source: str | None = None,
    dont_fragment: bool = False,
) -> parse.Ping:
    """Sends `count` echo requests, all at once, and counts the answers.

    `size`: ICMP payload in bytes; `source`: address to bind.
    """
    # Once it has an answer, ping waits for the last one no longer than its interval or twice the longest round trip,
    # whatever -W says: with 50 ms between requests, a machine that stands still for that long would have lost a packet.
    command = ["ping", "-n", "-q", f"-c{count}", f"-l{count}", f"-i{LATE_S}", f"-W{LATE_S}"]
    command += [f"-s{size}"] if size is not None else []
    command += ["-I", source] if source else []
    command += ["-Mdo"] if dont_fragment else []
    # Its exit status only repeats what the summary says; without a summary, `parse` names what it said instead.
    return parse.ping(namespace.run(*command, address, deadline_s=SLACK_S, check=False))


@contextmanager
def iperf_server(
    namespace: Namespace, port: int = PORT, address: str = "", *, family: str = "-4", urgent: bool = False
) -> Iterator[Process]:
    """An iperf3 server for one run, listening when the context is entered.

    `urgent`: it goes before other programs, where that is permitted.

    On a host of several addresses it has to be told the one that its clients use: over UDP the kernel chooses the
    sender of the first answer, and a client believes only the address it has called.
    """
    bound = ["--bind", address] if address else []
    words = (*(URGENT if urgent else ()), "iperf3", "--server", "--one-off", family, "--port", str(port), *bound)
    server = namespace.start(*words, name=f"iperf3-server-{next(_serial)}")

    def listening() -> bool:
        if server.returncode is not None:
            raise LabError(f"the iperf3 server ended at once\n{server.tail()}")
        return bool(namespace.run("ss", "-Hltn", f"sport = :{port}"))

    try:
        until(listening, SLACK_S, f"iperf3 server in {namespace.name}: not listening on port {port}")
        yield server
    finally:
        server.stop()


@dataclass(frozen=True)
class Way:
    """From where to where iperf3 runs; `address` is the server's, as the client reaches it."""

    client: Namespace
    server: Namespace
    address: str
    source: str = ""
    """The client's own address; empty leaves the choice to the kernel."""


def tcp(way: Way, *, seconds: int = 5, reverse: bool = False, streams: int = 1) -> parse.Tcp:
    """Runs iperf3 over TCP; `reverse` sends from the server to the client."""
    options = [f"--parallel={streams}", *(["--reverse"] if reverse else [])]
    return _run(way, seconds, options, parse.iperf_tcp)


def udp(  # noqa: PLR0913  (these are iperf3's own options, and one of ours)
    way: Way,
    *,
    seconds: int = 5,
    reverse: bool = False,
    rate: str = "500M",
    payload_bytes: int = UDP_PAYLOAD_BYTES,
    urgent: bool = False,
) -> parse.Udp:
    """Runs iperf3 over UDP at an offered `rate` in bit/s (K, M, G as iperf3 takes them).

    `urgent`: the server goes before other programs and has a large buffer, so that it loses as little as it can.
    """
    options = ["--window", str(window_bytes())] if urgent else []
    options += ["--udp", "--bitrate", rate, "--length", str(payload_bytes), *(["--reverse"] if reverse else [])]
    return _run(way, seconds, options, parse.iperf_udp, urgent=urgent)


def window_bytes() -> int:
    """What the kernel grants of WINDOW_BYTES to both ends; iperf3 gives up when it is granted less than it asks for."""
    granted = WINDOW_BYTES
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            tried.setsockopt(socket.SOL_SOCKET, option, WINDOW_BYTES)
            granted = min(granted, tried.getsockopt(socket.SOL_SOCKET, option) // 2)  # it doubles what it grants
    return granted


def _run(way: Way, seconds: int, options: list[str], read: Callable[[str], T], *, urgent: bool = False) -> T:
    command = ["iperf3", "--client", way.address, "--time", str(seconds), "--json", "--connect-timeout", "3000"]
    command += ["--bind", way.source] if way.source else []
    address, family = way.address if way.source else "", "-6" if ":" in way.address else "-4"
    with iperf_server(way.server, address=address, family=family, urgent=urgent) as process:
        # A failing iperf3 still prints JSON; `read` turns the error in it into ours.
        said = way.client.run(*command, *options, deadline_s=seconds + SLACK_S, check=False)
        try:
            return read(said)
        except LabError as error:
            where = f"from {way.client.name} to {way.address}"
            raise LabError(f"{error} ({where})\n{process.tail()}") from None
