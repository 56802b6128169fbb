"""What counts as lost of late, with a clock that is told the time."""

import asyncio

import pytest
from observed import facts, kernel, values

from udpbackend.dataplane.native import counter_infos
from udpbackend.doctor.checks import losses as check
from udpbackend.doctor.checks import refused
from udpbackend.observe import losses as module
from udpbackend.observe.build import build
from udpbackend.observe.losses import CAUSES, REFUSALS, Losses, evidence


class Watched:
    """Totals and the time."""

    def __init__(self):
        self.now_s = 100.0
        self.losses = Losses(counter_infos(), dict, dict, clock=lambda: self.now_s)

    def sample(self, **counts):
        self.losses.sample(*totals(counts))

    def found(self, **counts):
        return {it.counter: (it.packets, it.of) for it in self.losses.since(*totals(counts))}


def totals(counts):
    """Of the dataplane, and of the kernel."""
    ours = {info.name for info in counter_infos()}
    return (
        values({name: value for name, value in counts.items() if name in ours}),
        kernel(**{name: value for name, value in counts.items() if name not in ours}),
    )


def test_every_cause_is_counted_somewhere():
    known = {info.name for info in counter_infos()} | {it.name for it in facts().kernel} | {"flannel0_rx_dropped"}
    for cause in (*CAUSES, *REFUSALS):
        assert {cause.counter, cause.beside} <= known


@pytest.mark.parametrize("cause", CAUSES, ids=lambda it: it.counter)
def test_a_share_is_harm_and_less_is_a_sign_but_for_what_nobody_is_meant_to_cause(cause):
    watched = Watched()
    watched.sample(**{cause.counter: 7, cause.beside: 100})
    assert watched.found(**{cause.counter: 7, cause.beside: 5000}) == {}
    assert watched.found(**{cause.counter: 57, cause.beside: 5050}) == {cause.counter: (50, 5000)}
    few = {cause.counter: (1, 1)} if cause.each else {}
    assert watched.found(**{cause.counter: 8, cause.beside: 100}) == few
    assert bool(watched.found(**{cause.counter: 56, cause.beside: 5051})) == cause.each


def test_it_heals_with_the_second_sample():
    watched = Watched()
    watched.sample(tx_drop_refused=0)
    assert watched.found(tx_drop_refused=3) == {"tx_drop_refused": (3, 3)}
    for heals in (False, True):
        watched.now_s += 5
        watched.sample(tx_drop_refused=3)
        assert (watched.found(tx_drop_refused=3) == {}) == heals


def test_what_our_own_counters_explain_is_no_full_queue():
    watched = Watched()
    watched.sample(flannel0_rx_dropped=0, rx_drop_tun_down=0, rx_drop_tun_refused=0, rx_writes=0)
    refused = {"rx_drop_tun_down": 90, "rx_drop_tun_refused": 10, "rx_writes": 100}
    assert watched.found(flannel0_rx_dropped=80, **refused) == {}, "super-packets: fewer writes than packets"
    assert watched.found(flannel0_rx_dropped=109, **refused) == {}
    assert watched.found(flannel0_rx_dropped=150, **refused) == {"flannel0_rx_dropped": (50, 150)}


def test_before_the_first_sample_nothing_is_known():
    assert Watched().found(tx_drop_refused=3) == {}


def test_what_could_not_be_read_once_tells_nothing():
    watched = Watched()
    watched.sample(tx_reads=0)
    assert watched.found(flannel0_tx_dropped=1000, tx_reads=0) == {}


def test_a_counter_that_begins_anew_has_lost_nothing():
    watched = Watched()
    watched.sample(flannel0_tx_dropped=1000, tx_reads=1000)
    assert watched.found(flannel0_tx_dropped=0, tx_reads=0) == {}


def test_it_samples_by_itself_and_not_where_the_kernel_moves_the_packets(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE_S", 0.01)
    asked = asyncio.Event()
    answers = []

    async def drops():
        answers.append(kernel(flannel0_tx_dropped=len(answers)))
        if len(answers) == 3:
            asked.set()
        return answers[-1]

    async def check_it():
        losses = Losses(counter_infos(), lambda: values({}), drops)
        running = asyncio.create_task(losses.run())
        await asyncio.wait_for(asked.wait(), 5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.wait_for(Losses((), tuple, drops).run(), 5)

    asyncio.run(check_it())
    assert len(answers) == 3


def test_the_verdict_and_the_doctor_say_it():
    watched = Watched()
    watched.sample(flannel0_tx_dropped=0, tx_reads=0)
    watched.now_s += 7
    lost = watched.losses.since(*totals({"flannel0_tx_dropped": 2000, "tx_reads": 8000}))
    assert evidence(lost[0]) == "2,000 of 10,000 in 7 s"
    report = build(facts(losses=lost))
    assert report.verdict.state == "degraded"
    assert "packets are lost: flannel0's queue was full (2,000 of 10,000 in 7 s)" in report.verdict.reasons
    (finding,) = check.judge(report)
    assert finding.clause in report.verdict.reasons, "or the doctor would say it twice"
    assert (finding.severity, "txqueuelen" in finding.cure) == ("part", True)


@pytest.mark.parametrize("cause", REFUSALS, ids=lambda it: it.counter)
def test_what_the_source_check_drops_is_told_and_changes_no_verdict(cause):
    watched = Watched()
    watched.sample(**{cause.counter: 7, "rx_delivered": 10})
    counts = {cause.counter: 10, "rx_delivered": 12}
    assert watched.found(**counts) == {}
    lost = watched.losses.since(*totals(counts), REFUSALS)
    before, now = build(facts(refused=lost)), build(facts())
    assert before.verdict.state == "ready"
    (finding,) = refused.judge(before, now)
    assert (finding.what, finding.evidence) == (f"packets are lost: {cause.why}", f"{cause.counter}: 3 of 5 in 0 s")
    assert refused.judge(now, now) == []
    (finding,) = refused.judge(now, build(facts(counters=values({cause.counter: now_at(now, cause) + 4}))))
    assert finding.evidence == f"{cause.counter}: 4 meanwhile"


def now_at(report, cause):
    return next(it.value for it in report.counters if it.name == cause.counter)
