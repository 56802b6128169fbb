"""One slow peer must not touch the others: what it cannot take is dropped for it alone, and `status` names it.

On host a, what goes to b leaves through a class of 1 Mbit/s whose queue holds a thousand packets, however long; the
rest has 10 Gbit/s. Kernel VXLAN loses nothing for c there.
"""

from contextlib import contextmanager

import pytest
from counted import Tally
from running import becomes

from bench.lab import slow, traffic
from bench.lab.daemon import Overlay
from bench.lab.topology import Lab
from bench.lab.wait import until

DEADLINE_S = 60.0
PINGS, ROUNDS = 10, 10


@contextmanager
def three_hosts(*arguments):
    with Lab(3) as lab, Overlay(lab, *arguments) as overlay:
        overlay.start_all()
        a, b, c = lab.hosts
        slow.slow_down(a, b.address)
        yield overlay, a, b, c
        overlay.stop_all()


@pytest.mark.parametrize("arguments", [(), ("--workers=2",), ("--source-ports=4",)], ids=["one", "workers", "ports"])
def test_others_lose_nothing(able, arguments):
    with three_hosts(*arguments) as (overlay, a, b, c):
        tally = Tally(overlay, a)

        def loses():
            return tally.peer(b.address)["tx_dropped"] > 0

        with slow.flooded(a, b.pod_address, segmented=True, pause_s=0.002):
            until(loses, DEADLINE_S, "nothing was dropped for b")
        with slow.flooded(a, b.pod_address, segmented=True, pause_s=slow.PAUSE_S):
            for _ in range(ROUNDS):
                found = traffic.ping(a.pod, c.pod_address, count=PINGS)
                assert (found.sent, found.received) == (PINGS, PINGS)
            words = f"peer {b.name} ({b.address}) takes less than it is sent"
            text = becomes(overlay, a, "degraded", DEADLINE_S, words)
            assert f"peer {c.name}" not in text
        grown = tally.grown("tx_drop")
        assert grown == {"tx_drop_slow_peer": tally.peer(b.address)["tx_dropped"]}
        assert tally.peer(c.address)["tx_dropped"] == 0
        # Nobody else receives what comes to the port: lanes only send.
        assert traffic.ping(c.pod, a.pod_address, count=PINGS).received == PINGS


@pytest.mark.parametrize("kind", ["blackhole", "unreachable"])
def test_a_peer_that_no_datagram_reaches_costs_the_others_nothing(able, kind):
    """The kernel says EINVAL of a blackhole route, as of too many segments: it is not asked again for each datagram."""
    with Lab(3) as lab, Overlay(lab) as overlay:
        overlay.start_all()
        a, b, c = lab.hosts
        a.namespace.run("ip", "route", "add", kind, f"{b.address}/32")
        tally = Tally(overlay, a)
        with slow.flooded(a, b.pod_address, segmented=True, pause_s=0.0001):
            until(lambda: sum(tally.grown("tx_drop").values()) > 0, DEADLINE_S, "nothing was dropped for b")
            for _ in range(ROUNDS):
                found = traffic.ping(a.pod, c.pod_address, count=PINGS)
                assert (found.sent, found.received) == (PINGS, PINGS)
        overlay.stop_all()


def test_what_a_qdisc_drops_is_counted_for_the_peer_and_the_verdict_heals(able):
    """Small packets reach the qdisc's limit before the lane's."""
    with three_hosts() as (overlay, a, b, _):
        tally = Tally(overlay, a)
        with slow.flooded(a, b.pod_address, segmented=False, pause_s=0.0002):
            until(lambda: tally.peer(b.address)["tx_dropped"] > 0, DEADLINE_S, "nothing was dropped for b")
        becomes(overlay, a, "degraded", DEADLINE_S, f"peer {b.name}")
        dropped = int(tally.peer(b.address)["tx_dropped"])
        assert tally.grown("tx_drop") == {"tx_drop_slow_peer": dropped}
        a.namespace.run("tc", "qdisc", "delete", "dev", "eth0", "root")
        becomes(overlay, a, "ready", DEADLINE_S)
        assert traffic.ping(a.pod, b.pod_address, count=PINGS).received == PINGS
        assert tally.peer(b.address)["tx_dropped"] == dropped
