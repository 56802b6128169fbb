"""The highest rate at which next to nothing is lost, searched by halving.

Owns the search, which is pure, and the rule of what is lost: less than LOSS_MAX of what was sent. Each step sends for a
second at a fixed rate; iperf3 paces with a timer of one millisecond, so what it sends comes in bursts of that length.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bench.lab import traffic
from bench.lab.traffic import Way
from bench.workloads.base import Context, ForAll, Outcome

LOSS_MAX = 0.001
STEPS = 7
"""Each halves what is not known: seven leave one per cent."""
TRIES = 2
"""A rate is given up when it loses packets so often in a row: other programs run on a machine, too."""
STEP_S = 1
UNDER_WAY_MAX = 1000
"""Datagrams: two queues of a TUN device."""
ABOVE = 1.2
"""The search begins at what an unlimited sender gets through, times this."""


@dataclass(frozen=True)
class Tried:
    """One step: what arrived, and the share that did not."""

    delivered_pps: float
    loss: float

    @property
    def good(self) -> bool:
        """Whether it counts as no loss."""
        return self.loss < LOSS_MAX


def loss(sent: int, arrived: int, missed: int) -> float:
    """The share that was lost: `missed`, which are gaps in what arrived.

    What was still under way at the end is no loss, unless it is more than queues can hold.
    """
    under_way = max(0, sent - arrived - missed)
    return (missed + (under_way if under_way > UNDER_WAY_MAX else 0)) / max(1, sent)


def search(send: Callable[[float], Tried], unlimited: Tried) -> float:
    """The highest delivered rate without loss; `send` is given a rate in packets per second."""
    if unlimited.good:
        return unlimited.delivered_pps
    best, low, high = 0.0, 0.0, unlimited.delivered_pps * ABOVE
    for _ in range(STEPS):
        rate = (low + high) / 2
        tried = next((found for found in (send(rate) for _ in range(TRIES)) if found.good), None)
        if tried is None:
            high = rate
        else:
            low, best = rate, max(best, tried.delivered_pps)
    return best


@dataclass(frozen=True)
class NoLoss(ForAll):
    """The search for one size of datagram."""

    payload_bytes: int
    headline = ("no_loss_pps",)

    @property
    def name(self) -> str:
        """As it is chosen."""
        return f"udp-{self.payload_bytes}-no-loss"

    @property
    def row(self) -> str:
        """As it stands in the document: one more figure of the same traffic."""
        return f"udp-{self.payload_bytes}"

    @property
    def what(self) -> str:
        """In words."""
        return f"highest rate of {self.payload_bytes}-byte datagrams with under 0.1 % loss, searched"

    def cost_s(self, seconds: int) -> float:
        """Steps, and some of them twice."""
        del seconds
        return 1.15 * STEP_S * (1 + 1.5 * STEPS)

    def run(self, way: Way, context: Context) -> Outcome:
        """One search."""
        arrived = 0

        def send(rate_pps: float) -> Tried:
            nonlocal arrived
            bits = str(round(rate_pps * 8 * self.payload_bytes))
            seen = traffic.udp(way, seconds=STEP_S, rate=bits, payload_bytes=self.payload_bytes)
            here = seen.received_bytes // self.payload_bytes
            arrived += here
            return Tried(here / seen.seconds, loss(seen.packets, here, seen.lost))

        found = search(send, send(0))
        context.no_loss_pps.setdefault(self.payload_bytes, []).append(found)
        return Outcome({"no_loss_pps": found}, forth_bytes=self.payload_bytes * arrived, whole=False)
