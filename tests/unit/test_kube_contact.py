"""How long to wait for the API server: longer after each failure, never too long, anew after a good while.

And no less than a busy server asks for, within reason.
"""

import time

import pytest

from udpbackend.subnets.kube.answers import LONGEST_RETRY_S, retry_after_s
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


def test_what_the_server_asks_for_is_the_least_wait(clock):
    backoff = Backoff(Timing())
    assert backoff.next_s(7) == 7
    clock[0] += 7 + 15  # less than a good while after that wait
    assert 0.5 <= backoff.next_s(0.1) <= 1


@pytest.mark.parametrize(
    ("code", "said", "wait"),
    [
        (429, "1", 1),
        (503, "30", 30),
        (429, "86400", LONGEST_RETRY_S),
        (429, "9" * 5000, LONGEST_RETRY_S),
        (500, "5", 0),
        (429, "", 0),
        (429, "-1", 0),
        (429, "Wed, 21 Oct 2026 07:28:00 GMT", 0),
        (429, "\u0665", 0),
    ],
)
def test_what_a_refusal_asks_for(code, said, wait):
    assert retry_after_s(code, said) == wait
