"""The search for the highest rate without loss, against links that lose in known ways."""

import pytest

from bench.workloads import no_loss
from bench.workloads.no_loss import Tried


def link(capacity, noise=()):
    """Loses what exceeds its capacity; runs whose number is in `noise` lose anyway."""
    runs = []

    def send(rate):
        runs.append(rate)
        if len(runs) in noise:
            return Tried(rate * 0.9, 0.1)
        delivered = min(rate, capacity)
        return Tried(delivered, 1 - delivered / rate)

    return send, runs


@pytest.mark.parametrize("capacity", [1000, 90_000, 1_000_000])
def test_it_finds_the_capacity(capacity):
    send, _ = link(capacity)
    assert no_loss.search(send, Tried(capacity, 0.5)) == pytest.approx(capacity, rel=0.02)


def test_what_an_unlimited_sender_gets_through_without_loss_needs_no_search():
    send, runs = link(1000)
    assert no_loss.search(send, Tried(150_000, 0.0005)) == 150_000
    assert runs == []


def test_one_bad_run_does_not_decide():
    send, _ = link(100_000, noise={1, 4})
    assert no_loss.search(send, Tried(100_000, 0.4)) == pytest.approx(100_000, rel=0.02)


def test_a_link_that_always_loses_has_no_such_rate():
    assert no_loss.search(lambda rate: Tried(rate / 2, 0.5), Tried(5000, 0.5)) == 0


def test_a_collapse_under_load_is_found_from_below():
    """Delivers all up to its capacity and next to nothing above."""

    def send(rate):
        return Tried(rate, 0.0) if rate <= 80_000 else Tried(1000, 0.99)

    assert no_loss.search(send, Tried(70_000, 0.6)) == pytest.approx(80_000, rel=0.02)


def test_what_is_still_under_way_is_not_lost():
    assert no_loss.loss(sent=100_000, arrived=99_500, missed=0) == 0
    assert no_loss.loss(sent=100_000, arrived=99_500, missed=400) == pytest.approx(0.004)


def test_more_than_queues_hold_is_lost():
    assert no_loss.loss(sent=100_000, arrived=50_000, missed=0) == pytest.approx(0.5)
