"""What ping and iperf3 print, as values. Pure: text in, dataclass out, LabError when the text is not what it should be.

Knows no namespaces and runs nothing.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.lab.wait import LabError

_PING_COUNT = re.compile(r"^(\d+) packets transmitted, (\d+) (?:packets )?received\b", re.MULTILINE)
_PING_EACH = re.compile(r"time=([\d.]+) ms")
_PING_RTT = re.compile(r"^(?:rtt|round-trip) min/avg/max\S* = ([\d.]+)/([\d.]+)/([\d.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Ping:
    """One run of ping. Round trips are in milliseconds, None when nothing came back."""

    sent: int
    received: int
    rtt_min_ms: float | None = None
    rtt_avg_ms: float | None = None
    rtt_max_ms: float | None = None

    @property
    def loss_percent(self) -> float:
        """Requests without an answer."""
        return 100.0 * (self.sent - self.received) / self.sent if self.sent else 0.0


@dataclass(frozen=True)
class Tcp:
    """One run of iperf3 over TCP: what arrived at the receiver, and what the sender sent again."""

    received_bytes: int
    seconds: float
    gbit_s: float
    retransmits: int
    congestion: str
    """The sender's congestion control; a figure without it says little."""


@dataclass(frozen=True)
class Udp:
    """One run of iperf3 over UDP. iperf3 sees no loss behind the last datagram that arrived."""

    received_bytes: int
    seconds: float
    gbit_s: float
    packets: int
    lost: int
    jitter_ms: float

    @property
    def loss_percent(self) -> float:
        """Datagrams that did not arrive."""
        return 100.0 * self.lost / self.packets if self.packets else 0.0


def ping(text: str) -> Ping:
    """Reads the summary of iputils' ping (busybox's too)."""
    counts = _PING_COUNT.search(text)
    if counts is None:
        raise LabError(f"this is no summary of ping: {text.strip()[-300:]!r}")
    sent, received = int(counts[1]), int(counts[2])
    times = _PING_RTT.search(text)
    if times is None:
        return Ping(sent, received)
    return Ping(sent, received, float(times[1]), float(times[2]), float(times[3]))


def ping_each(text: str) -> list[float]:
    """The round trip of each answer that ping printed, in seconds."""
    return [float(found) / 1e3 for found in _PING_EACH.findall(text)]


@contextmanager
def _as_iperf_prints() -> Iterator[None]:
    """Turns what goes wrong while reading a document of another shape into a LabError."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LabError(f"iperf3 printed something else than expected: {error!r}") from error


def _end(text: str, protocol: str) -> dict[str, Any]:
    """The final sums of an iperf3 JSON document; its own error message becomes ours."""
    try:
        document = json.loads(text)
    except ValueError:
        raise LabError(f"iperf3 printed no JSON: {text.strip()[:300]!r}") from None
    if error := document.get("error"):
        raise LabError(f"iperf3: {error}")
    found = document["start"]["test_start"]["protocol"]
    if found != protocol:
        raise LabError(f"this is no {protocol} run of iperf3 but {found}")
    end: dict[str, Any] = document["end"]
    return end


@_as_iperf_prints()
def iperf_tcp(text: str) -> Tcp:
    """Reads `iperf3 -J` of a TCP run in either direction."""
    end = _end(text, "TCP")
    received = end["sum_received"]
    return Tcp(
        received_bytes=int(received["bytes"]),
        seconds=float(received["seconds"]),
        gbit_s=float(received["bits_per_second"]) / 1e9,
        retransmits=int(end["sum_sent"].get("retransmits", 0)),
        congestion=str(end.get("sender_tcp_congestion", "")),
    )


@_as_iperf_prints()
def iperf_udp(text: str) -> Udp:
    """Reads `iperf3 -u -J` in either direction."""
    end = _end(text, "UDP")
    received, both = end["sum_received"], end["sum"]
    return Udp(
        received_bytes=int(received["bytes"]),
        seconds=float(received["seconds"]),
        gbit_s=float(received["bits_per_second"]) / 1e9,
        packets=int(both["packets"]),
        lost=int(both["lost_packets"]),
        jitter_ms=float(both["jitter_ms"]),
    )
