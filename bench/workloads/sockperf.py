"""Latency: sockperf sends one datagram, waits for its echo, and sends the next.

Owns sockperf's command line and the reading of what it prints. Its figures are half a round trip, and so are ours. The
ends sleep between datagrams: this is the latency of a quiet machine, wake-ups and all.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.lab.netns import Namespace
from bench.lab.traffic import SLACK_S, Way
from bench.lab.wait import LabError, until
from bench.workloads.base import Context, ForAll, Outcome

PORT = 11111
MESSAGE_BYTES = 14
"""sockperf's own default, and its minimum."""
START_S = 2.3
"""sockperf sleeps this long beside its duration, whatever it is told."""

PERCENTILES = {
    "25.000": "latency_p25_s",
    "50.000": "latency_p50_s",
    "75.000": "latency_p75_s",
    "90.000": "latency_p90_s",
    "99.000": "latency_p99_s",
    "99.900": "latency_p999_s",
}
_PERCENTILE = re.compile(r"percentile\s+([\d.]+) =\s+([\d.]+)")
_RECEIVED = re.compile(r"\[Total Run\].*ReceivedMessages=(\d+)")


@dataclass(frozen=True)
class PingPong:
    """What sockperf printed."""

    latencies_s: dict[str, float]
    """By metric."""
    received: int


def parse(text: str) -> PingPong:
    """Reads the end of `sockperf ping-pong`; LabError when nothing came back."""
    printed = dict(_PERCENTILE.findall(text))
    found = {metric: float(printed[at]) / 1e6 for at, metric in PERCENTILES.items() if at in printed}
    received = _RECEIVED.search(text)
    if received is None or len(found) < len(PERCENTILES):
        raise LabError(f"sockperf printed no latencies: {text.strip()[-300:]!r}")
    return PingPong(found, int(received[1]))


@contextmanager
def server(namespace: Namespace, address: str) -> Iterator[None]:
    """A sockperf server that is there while the context lasts."""
    process = namespace.start("sockperf", "server", "--ip", address, "--port", str(PORT), name="sockperf-server")

    def listening() -> bool:
        if process.returncode is not None:
            raise LabError(f"the sockperf server ended at once\n{process.tail()}")
        return bool(namespace.run("ss", "-Hlun", f"sport = :{PORT}"))

    try:
        until(listening, 5, f"sockperf server in {namespace.name}: not listening")
        yield
    finally:
        process.stop()


def ping_pong(way: Way, seconds: int) -> PingPong:
    """One run of client and server."""
    command = ["sockperf", "ping-pong", "--ip", way.address, "--port", str(PORT), "--client_ip", way.source]
    command += ["--time", str(seconds), "--msg-size", str(MESSAGE_BYTES)]
    with server(way.server, way.address):
        return parse(way.client.run(*command, deadline_s=seconds + SLACK_S, check=False))


class Quiet(ForAll):
    """Ping-pong with nothing else going on."""

    name = row = "pingpong"
    what = "sockperf UDP ping-pong, half round trip, quiet machine"
    headline = ("latency_p50_s", "latency_p99_s")

    def cost_s(self, seconds: int) -> float:
        """Duration and sockperf's sleeps."""
        return seconds + START_S

    def run(self, way: Way, context: Context) -> Outcome:
        """One run."""
        seen = ping_pong(way, context.seconds)
        octets = seen.received * MESSAGE_BYTES
        return Outcome(dict(seen.latencies_s), forth_bytes=octets, back_bytes=octets)
