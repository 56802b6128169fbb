"""What the demonstration sends, and what must have been counted for it to pass.

Owns the tests, one by one, and the words for their figures. Must not know a backend, nor how a table is laid out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.lab import parse, traffic
from bench.lab.daemon import Carried
from bench.lab.netns import Namespace
from bench.lab.topology import Host

PINGS = 10
UDP_RATE = "500M"
UDP_OFFERED = "500 Mbit/s"
LOSS_MAX = 0.001
"""The share of these datagrams that an overlay may lose at this rate. What finds the receiving program's own socket
full is not among them: that program waits for a processor like any other, and its buffer holds milliseconds on kernels
whose net.core.rmem_max is small."""


@dataclass(frozen=True)
class Seen:
    """What one test measured from outside: the figures for the table and what must have been carried."""

    rate: str
    loss: str
    round_trip: str
    packets: int
    """That arrived, as seen by ping; 0 where the tool counts bytes."""
    octets: int
    """That arrived, as seen by iperf3: payload bytes, so more has been carried."""
    well: bool
    """Whether the tool is content: no ping is lost, and of iperf3 something arrives."""
    lost: int = 0
    """Datagrams, of those that were sent."""
    sent: int = 0

    @property
    def brief(self) -> str:
        """All figures with their units."""
        figures = ((self.rate, "Gbit/s"), (self.round_trip, "ms"), (self.loss, "lost"))
        return ", ".join(f"{figure} {unit}" for figure, unit in figures if figure != "-")


@dataclass(frozen=True)
class Trial:
    """One test: packets go from `sender` to `receiver`."""

    path: str
    name: str
    sender: Host
    receiver: Host
    run: Callable[[], Seen]


def from_ping(result: parse.Ping) -> Seen:
    """What ping saw; without any answer there is no round trip."""
    times = (result.rtt_min_ms, result.rtt_avg_ms, result.rtt_max_ms)
    trip = "-" if None in times else "/".join(f"{ms:.2f}" for ms in times)
    return Seen("-", f"{result.loss_percent:.0f} %", trip, result.received, 0, result.received == result.sent)


def from_tcp(result: parse.Tcp) -> Seen:
    """What iperf3 saw over TCP, which itself repairs every loss."""
    return Seen(f"{result.gbit_s:.2f}", "-", "-", 0, result.received_bytes, result.received_bytes > 0)


def from_udp(result: parse.Udp) -> Seen:
    """What iperf3 saw over UDP."""
    well = result.received_bytes > 0
    loss = f"{result.loss_percent:.2f} %"
    return Seen(f"{result.gbit_s:.2f}", loss, "-", 0, result.received_bytes, well, result.lost, result.packets)


def pings(here: Host, there: Host) -> Iterator[Trial]:
    """Pod to pod and host to pod, in one direction."""

    def send(source: Namespace) -> Callable[[], Seen]:
        return lambda: from_ping(traffic.ping(source, there.pod_address, count=PINGS))

    yield Trial(f"pod {here.name} -> pod {there.name}", "ping", here, there, send(here.pod))
    yield Trial(f"host {here.name} -> pod {there.name}", "ping", here, there, send(here.namespace))


def tcp(here: Host, there: Host, seconds: int, *, reverse: bool = False) -> Trial:
    """TCP, pod to pod. The client is `here`; with `reverse` it is the server that sends."""
    way = traffic.Way(here.pod, there.pod, there.pod_address)
    sender, receiver = (there, here) if reverse else (here, there)
    path = f"pod {sender.name} -> pod {receiver.name}"
    return Trial(path, "TCP", sender, receiver, lambda: from_tcp(traffic.tcp(way, seconds=seconds, reverse=reverse)))


def udp(here: Host, there: Host, seconds: int) -> Trial:
    """UDP, pod to pod."""
    way = traffic.Way(here.pod, there.pod, there.pod_address)
    path = f"pod {here.name} -> pod {there.name}"

    def run() -> Seen:
        return from_udp(traffic.udp(way, seconds=seconds, rate=UDP_RATE, urgent=True))

    return Trial(path, f"UDP {UDP_OFFERED}", here, there, run)


def all_of_them(hosts: list[Host], seconds: int) -> Iterator[Trial]:
    """Pings between neighbours on a ring, both ways; iperf3 between the first host and the last."""
    ring = list(zip(hosts, [*hosts[1:], hosts[0]], strict=True))
    for here, there in ring if len(hosts) > 2 else ring[:1]:
        yield from pings(here, there)
        yield from pings(there, here)
    ends = hosts[0], hosts[-1]
    yield from (tcp(*ends, seconds), tcp(*ends, seconds, reverse=True), udp(*ends, seconds))


def one_way(hosts: list[Host], seconds: int) -> Iterator[Trial]:
    """From the first host to the last: short enough to be done for each backend in turn."""
    ends = hosts[0], hosts[-1]
    yield from (*pings(*ends), tcp(*ends, seconds), udp(*ends, seconds))


def lost(seen: Seen, overflowed: int) -> bool:
    """Whether the overlay lost more than it may.

    `overflowed`: datagrams that it has delivered and the receiving program had no room for.
    """
    return seen.lost - overflowed > seen.sent * LOSS_MAX


def verdict(seen: Seen, sent: Carried, received: Carried) -> bool:
    """Whether the tool is content and both hosts' overlays carried at least what it saw arrive."""
    return (
        seen.well
        and min(sent.tx_packets, received.rx_packets) >= max(seen.packets, 1)
        and min(sent.tx_bytes, received.rx_bytes) >= max(seen.octets, 1)
    )
