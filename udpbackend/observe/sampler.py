"""One sleepy task that makes rates out of totals and measures how late the event loop runs.

Owns the last two samples and nothing of the dataplane: it is handed a function that reads the counters. It wakes once
a second for some microseconds; a loop that is late delays packets of a queue on it, so its lag is worth that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from udpbackend.observe.report import Rates

if TYPE_CHECKING:
    from udpbackend.dataplane.native import CounterInfo

TICK_S = 1.0
TICKS = 5
"""Ticks to a sample: rates are means over five seconds, lag is the worst of the last five to ten."""

RATED = ("tx_delivered", "tx_bytes", "rx_delivered", "rx_bytes")


class Sampler:
    """Run `run` as a task for the daemon's life; `rates` and `lag_s` may be read at any time."""

    def __init__(
        self,
        infos: Sequence[CounterInfo],
        read: Callable[[], Sequence[int]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        names = [info.name for info in infos]
        self._where = [names.index(name) for name in RATED] if names else []
        self._read = read
        self._clock = clock
        self._last: tuple[float, list[int]] | None = None
        self._rates = Rates()
        self._lag_now = self._lag_before = 0.0

    @property
    def rates(self) -> Rates:
        """Between the last two samples."""
        return self._rates

    @property
    def lag_s(self) -> float:
        """The worst lateness of this interval and the one before."""
        return max(self._lag_now, self._lag_before)

    async def run(self) -> None:
        """Ticks until cancelled."""
        self.sample()
        while True:
            for _ in range(TICKS):
                planned = self._clock() + TICK_S
                await asyncio.sleep(TICK_S)
                self.woke(self._clock() - planned)
            self.sample()

    def woke(self, late_s: float) -> None:
        """Notes by how much a wake-up was late; the loop's clock ticks in milliseconds, so it may even be early."""
        self._lag_now = max(self._lag_now, late_s)

    def sample(self) -> None:
        """Ends an interval."""
        self._lag_before, self._lag_now = self._lag_now, 0.0
        values = self._read() if self._where else ()
        now, totals = self._clock(), [values[i] for i in self._where]
        if self._last is not None and totals and now > self._last[0]:
            then, before = self._last
            over_s = now - then
            per_s = [max(0, new - old) / over_s for new, old in zip(totals, before, strict=True)]
            self._rates = Rates(
                tx_packets_per_s=round(per_s[0], 3),
                tx_bits_per_s=round(per_s[1] * 8, 3),
                rx_packets_per_s=round(per_s[2], 3),
                rx_bits_per_s=round(per_s[3] * 8, 3),
                over_s=round(over_s, 3),
            )
        self._last = now, totals
