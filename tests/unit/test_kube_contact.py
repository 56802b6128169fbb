"""How long to wait for the API server: longer after each failure, never too long, anew after a good while."""

import time

import pytest

from udpbackend.subnets.kube.contact import Backoff, Timing


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def waits(backoff, clock, count):
    found = []
    for _ in range(count):
        found.append(backoff.next_s())
        clock[0] += found[-1]
    return found


def test_waits_grow_up_to_a_limit(clock):
    found = waits(Backoff(Timing()), clock, 12)
    limits = [0.5, 1, 2, 4, 8, *[10] * 7]
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(found, limits, strict=True))


def test_waits_differ_from_node_to_node(clock):
    assert len({Backoff(Timing()).next_s() for _ in range(10)}) > 5


def test_after_a_good_while_waits_begin_anew(clock):
    backoff = Backoff(Timing())
    waits(backoff, clock, 8)
    clock[0] += 15
    assert backoff.next_s() > 4
    clock[0] += 40
    assert backoff.next_s() <= 0.5
