"""Latency beside other traffic: datagrams at a share of the rate without loss, or a TCP stream that takes all it gets.

Owns the background traffic. The rate without loss is each system's own, as found earlier in the same run.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from bench.lab import parse
from bench.lab.process import Process
from bench.lab.traffic import SLACK_S, Way, iperf_server
from bench.workloads import sockperf
from bench.workloads.base import Context, ForAll, Outcome
from bench.workloads.no_loss import NoLoss

PORT = 5202
PAYLOAD_BYTES = 64
_serial = itertools.count()


@contextmanager
def background(way: Way, seconds: float, *options: str, port: int = PORT) -> Iterator[Process]:
    """iperf3 that sends for a fixed time while the context goes on; its output can be read when it has ended."""
    command = ["iperf3", "--client", way.address, "--bind", way.source, "--port", str(port), "--json"]
    command += ["--time", str(round(seconds)), *options]
    with iperf_server(way.server, port, way.address):
        process = way.client.start(*command, name=f"background-{next(_serial)}")
        try:
            yield process
        finally:
            process.stop()


@dataclass(frozen=True)
class AtRate(ForAll):
    """Ping-pong beside datagrams at a share of the rate without loss."""

    percent: int
    headline = ("latency_p50_s", "latency_p99_s")

    @property
    def name(self) -> str:
        """pingpong-at-50, ..."""
        return f"pingpong-at-{self.percent}"

    row = name

    @property
    def what(self) -> str:
        """In words."""
        return f"ping-pong beside {PAYLOAD_BYTES}-byte datagrams at {self.percent} % of the rate without loss"

    def cost_s(self, seconds: int) -> float:
        """Duration, sockperf's sleeps, and the end of the background."""
        return seconds + sockperf.START_S + 0.5

    def run(self, way: Way, context: Context) -> Outcome:
        """One run."""
        if not context.no_loss_pps.get(PAYLOAD_BYTES):
            NoLoss(PAYLOAD_BYTES).run(way, context)
        rate = median(context.no_loss_pps[PAYLOAD_BYTES]) * self.percent / 100
        options = ("--udp", "--bitrate", str(round(rate * 8 * PAYLOAD_BYTES)), "--length", str(PAYLOAD_BYTES))
        lasts = context.seconds + sockperf.START_S
        with background(way, lasts, *options) as process:
            seen = sockperf.ping_pong(way, context.seconds)
            process.wait(SLACK_S)
            beside = parse.iperf_udp(process.stdout.read_text())
        octets = seen.received * sockperf.MESSAGE_BYTES
        values = {**seen.latencies_s, "load_pps": beside.received_bytes / PAYLOAD_BYTES / beside.seconds}
        return Outcome(values, forth_bytes=octets + beside.received_bytes, back_bytes=octets, whole=False)


class UnderTcp(ForAll):
    """Ping-pong beside one TCP stream that takes all it can get."""

    name = row = "pingpong-under-tcp"
    what = "ping-pong beside one saturating TCP stream"
    headline = ("latency_p50_s", "latency_p99_s")

    def cost_s(self, seconds: int) -> float:
        """As beside datagrams."""
        return seconds + sockperf.START_S + 0.5

    def run(self, way: Way, context: Context) -> Outcome:
        """One run."""
        with background(way, context.seconds + sockperf.START_S) as process:
            seen = sockperf.ping_pong(way, context.seconds)
            process.wait(SLACK_S)
            beside = parse.iperf_tcp(process.stdout.read_text())
        octets = seen.received * sockperf.MESSAGE_BYTES
        values = {**seen.latencies_s, "load_bps": beside.gbit_s * 1e9}
        return Outcome(values, forth_bytes=octets + beside.received_bytes, back_bytes=octets, whole=False)
