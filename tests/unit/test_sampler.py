"""Rates and loop lag, with a clock that is told the time."""

import asyncio
import time
from contextlib import suppress

import pytest
from observed import values

from udpbackend.dataplane.native import counter_infos
from udpbackend.observe import sampler
from udpbackend.observe.report import Rates
from udpbackend.observe.sampler import Sampler


class Counted:
    """A dataplane's totals and the time."""

    def __init__(self):
        self.counts = {}
        self.now_s = 100.0

    def read(self):
        return values(self.counts)

    def sampler(self):
        return Sampler(counter_infos(), self.read, clock=lambda: self.now_s)


def test_rates_are_differences_by_time():
    counted = Counted()
    sampled = counted.sampler()
    sampled.sample()
    assert sampled.rates == Rates()
    counted.now_s += 5
    counted.counts = {"tx_delivered": 50, "tx_bytes": 5000, "rx_delivered": 5, "rx_bytes": 10}
    sampled.sample()
    assert sampled.rates == Rates(
        tx_packets_per_s=10, tx_bits_per_s=8000, rx_packets_per_s=1, rx_bits_per_s=16, over_s=5
    )


def test_totals_that_start_again_give_no_negative_rate():
    counted = Counted()
    counted.counts = {"tx_delivered": 50}
    sampled = counted.sampler()
    sampled.sample()
    counted.counts, counted.now_s = {}, 105.0
    sampled.sample()
    assert sampled.rates == Rates(over_s=5)


def test_two_samples_at_one_moment_divide_nothing():
    sampled = Counted().sampler()
    sampled.sample()
    sampled.sample()
    assert sampled.rates == Rates()


def test_without_a_dataplane_there_are_no_rates():
    sampled = Sampler((), list)
    sampled.sample()
    sampled.sample()
    assert sampled.rates == Rates()


def test_lag_is_kept_for_one_more_interval():
    sampled = Counted().sampler()
    sampled.woke(-0.001)
    assert sampled.lag_s == 0
    sampled.woke(0.2)
    sampled.woke(0.1)
    sampled.sample()
    assert sampled.lag_s == pytest.approx(0.2)
    sampled.sample()
    assert sampled.lag_s == 0


async def test_the_task_notices_a_loop_that_is_held_up(monkeypatch):
    monkeypatch.setattr(sampler, "TICK_S", 0.01)
    sampled = Sampler(counter_infos(), lambda: values({}))
    task = asyncio.create_task(sampled.run())
    await asyncio.sleep(0.001)
    time.sleep(0.1)  # noqa: ASYNC251 that is the point
    deadline = time.monotonic() + 5
    while sampled.lag_s < 0.05:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
