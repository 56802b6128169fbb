"""Bulk traffic: iperf3 over TCP with one or several streams, and over UDP with an unlimited sender.

Owns what an iperf3 result means to us. The programs are run by the laboratory's `traffic`.
"""

from dataclasses import dataclass

from bench.lab import traffic
from bench.lab.traffic import Way
from bench.workloads.base import Context, ForAll, Outcome

START_S = 0.1
"""A server that listens, a client that connects, results that are exchanged."""


@dataclass(frozen=True)
class Tcp(ForAll):
    """One iperf3 process with so many streams."""

    streams: int
    reverse: bool = False
    headline = ("throughput_bps",)

    @property
    def name(self) -> str:
        """tcp-1, tcp-4-reverse, ..."""
        return f"tcp-{self.streams}{'-reverse' if self.reverse else ''}"

    row = name

    @property
    def what(self) -> str:
        """In words."""
        return f"iperf3 TCP, {self.streams} stream{'s' * (self.streams > 1)}{', server sends' * self.reverse}"

    def cost_s(self, seconds: int) -> float:
        """Duration and start."""
        return seconds + START_S

    def run(self, way: Way, context: Context) -> Outcome:
        """One run."""
        seen = traffic.tcp(way, seconds=context.seconds, streams=self.streams, reverse=self.reverse)
        forth, back = (0, seen.received_bytes) if self.reverse else (seen.received_bytes, 0)
        return Outcome(
            {"throughput_bps": seen.gbit_s * 1e9, "retransmits": seen.retransmits},
            forth_bytes=forth,
            back_bytes=back,
            bits=8.0 * seen.received_bytes,
            notes=[f"congestion control {seen.congestion}"],
        )


@dataclass(frozen=True)
class Udp(ForAll):
    """Datagrams of one size, as fast as one sender can."""

    payload_bytes: int
    headline = ("delivered_pps",)

    @property
    def name(self) -> str:
        """udp-64, ..."""
        return f"udp-{self.payload_bytes}"

    row = name

    @property
    def what(self) -> str:
        """In words."""
        return f"iperf3 UDP, {self.payload_bytes} bytes of payload, sender unlimited"

    def cost_s(self, seconds: int) -> float:
        """Duration and start."""
        return seconds + START_S

    def run(self, way: Way, context: Context) -> Outcome:
        """One run."""
        seen = traffic.udp(way, seconds=context.seconds, rate="0", payload_bytes=self.payload_bytes)
        arrived = seen.received_bytes // self.payload_bytes
        return Outcome(
            {
                "delivered_pps": arrived / seen.seconds,
                "throughput_bps": 8.0 * self.payload_bytes * arrived / seen.seconds,
                "loss_ratio": 1 - arrived / max(1, seen.packets),
            },
            forth_bytes=self.payload_bytes * arrived,
            packets=arrived,
            bits=8.0 * self.payload_bytes * arrived,
        )
