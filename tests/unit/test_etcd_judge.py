"""What it means that our key was changed, for every order in which it can be told; etcd and the keeper are played."""

import asyncio
from contextlib import suppress

import pytest

from udpbackend.errors import LeaseRevokedError, RegistryError
from udpbackend.model import Lease, Prefix
from udpbackend.subnets.etcd import contest, health, judge
from udpbackend.subnets.etcd.health import Health
from udpbackend.subnets.etcd.judge import Judge
from udpbackend.subnets.etcd.own import FOREVER, Own
from udpbackend.subnets.etcd.values import Batch, CompactedError, Event, KeyValue, Range

KEY = b"/n/subnets/10.5.1.0-24"
DAY_S = 86400.0
AWAY = RegistryError("etcd: away")


class Keeper:
    """Counts how often the lease was renewed; each time the key is written at a later revision, or found so."""

    step = 100

    def __init__(self, expires=DAY_S):
        self.own = self._own(10, expires)
        self.renewed = 0
        self.errors = []

    def _own(self, revision, expires):
        return Own(Lease(Prefix.parse("10.5.1.0/24"), 1), KEY, b"v", revision, 7, expires)

    async def renew(self):
        if self.errors:
            raise self.errors.pop()
        self.renewed += 1
        self.own = self._own(100 * self.renewed - 100 + self.step, DAY_S)


class Etcd:
    """What it remembers of our key, to be read by a watch."""

    def __init__(self, *says):
        self.asked = []
        self._says = says

    async def watch(self, prefix, revision):
        self.asked.append((prefix, revision))
        for each in self._says:
            if isinstance(each, Exception):
                raise each
            yield each
        await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(health, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(judge, "ASK_S", 0.05)


def event(kind, revision, key=KEY):
    return Event(kind, KeyValue(key, b"v", revision, revision, 1, 7))


def listing(revision, *own_revisions):
    return Range(revision, 1, tuple(KeyValue(KEY, b"v", own, own, 1, 7) for own in own_revisions))


class Case:
    """A judge of our own, at a moment of the host's clock."""

    def __init__(self, keeper=None, etcd=None, now=0.0):
        self.keeper, self.etcd, self.health = keeper or Keeper(), etcd or Etcd(), Health()
        self.judge = Judge(self.etcd, self.keeper, self.health, clock=lambda: now)

    async def verdict(self):
        """Whether all that was told ends in `revoked`; otherwise how often the lease was renewed."""
        running = asyncio.create_task(self.judge.run())
        try:
            for _ in range(500):
                await asyncio.sleep(0.001)
                if running.done() or (self.judge._cases.empty() and not self.keeper.errors):
                    break
            await asyncio.wait([running], timeout=0.1)
            if running.done():
                with pytest.raises(LeaseRevokedError, match=r"^Lease has been revoked"):
                    running.result()
                return "revoked"
            return self.keeper.renewed
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, LeaseRevokedError):
                await running


async def test_deleted_with_time_left():
    case = Case()
    case.judge.changed(event("DELETE", 11))
    assert await case.verdict() == "revoked"


@pytest.mark.parametrize("now", [DAY_S - judge.SLACK_S, DAY_S, 2 * DAY_S])
async def test_deleted_when_its_time_was_over(now):
    case = Case(now=now)
    case.judge.changed(event("DELETE", 11))
    assert await case.verdict() == 1


async def test_a_reservation_has_no_end():
    case = Case(Keeper(expires=FOREVER), now=1e9)
    case.judge.changed(event("DELETE", 11))
    assert await case.verdict() == "revoked"


async def test_deleted_before_we_wrote_it_again():
    case = Case()
    case.judge.changed(event("DELETE", 9))
    assert await case.verdict() == 0


async def test_our_own_writing_is_not_looked_at():
    case = Case()
    case.judge.changed(event("PUT", 10))
    case.judge.listed(listing(12, 10), 0, None)
    assert await case.verdict() == 0


async def test_somebody_elses_writing_is_looked_at():
    case = Case()
    case.judge.changed(event("PUT", 11))
    assert await case.verdict() == 1
    other = Case()
    other.judge.listed(listing(12, 11), 0, None)
    assert await other.verdict() == 1


async def test_a_key_that_we_gave_up_ourselves_while_putting_it_back():
    """The keeper writes, finds an older rival, and takes it back: the writing is judged first, and waits for it."""
    case = Case()
    case.judge.changed(event("PUT", 11))
    case.judge.changed(event("DELETE", 12))
    assert await case.verdict() == 1


async def test_missing_and_etcd_knows_that_it_was_deleted():
    case = Case(etcd=Etcd(Batch(20, 1, ()), Batch(20, 1, (event("DELETE", 15),))))
    case.judge.listed(listing(20), 14, None)
    assert await case.verdict() == "revoked"
    assert case.etcd.asked == [(KEY, 15)]


@pytest.mark.parametrize(
    "says",
    [
        (CompactedError("compacted", 19),),
        (Batch(20, 1, ()),),
        (Batch(20, 1, (event("DELETE", 15, KEY + b"&fc00::-64"), event("PUT", 16))),),
    ],
    ids=["compacted", "silent", "another key"],
)
async def test_missing_and_etcd_does_not_know_why(says):
    case = Case(etcd=Etcd(*says))
    case.judge.listed(listing(20), 0, None)
    assert await case.verdict() == 1
    assert case.etcd.asked == [(KEY, 11)]


async def test_missing_when_its_time_was_over_is_not_asked_about():
    case = Case(now=DAY_S)
    case.judge.listed(listing(20), 0, None)
    assert await case.verdict() == 1
    assert case.etcd.asked == []


async def test_missing_in_a_list_from_before_we_wrote_it():
    case = Case()
    case.judge.listed(listing(9), 0, None)
    assert await case.verdict() == 0


@pytest.mark.parametrize("found", [(), (3,)], ids=["missing", "an older copy"])
async def test_after_a_reset_it_is_looked_at_whatever_the_numbers_say(found):
    case = Case()
    case.judge.listed(listing(5, *found), 0, "its revision was 20 and is 5")
    assert await case.verdict() == 1
    assert case.etcd.asked == []


async def test_while_etcd_is_away_it_is_tried_again():
    case = Case()
    case.keeper.errors = [AWAY, AWAY]
    case.judge.changed(event("PUT", 11))
    assert await case.verdict() == 1
    assert case.health.degraded is None


def rewritten(case, times):
    """Somebody writes the key after each writing of ours."""
    for n in range(times):
        case.judge.changed(event("PUT", 100 * n + 50))


@pytest.fixture
def pauses(monkeypatch):
    """One for each pause that was made."""
    made = []

    async def pause(_backoff, spread_s=0.0):
        made.append(spread_s)

    monkeypatch.setattr(health.Backoff, "pause", pause)
    return made


async def test_who_writes_our_key_again_and_again_is_told_once_and_answered_with_pauses(pauses, caplog):
    case = Case()
    rewritten(case, contest.REWRITES - 1)
    assert await case.verdict() == contest.REWRITES - 1
    assert (pauses, case.health.degraded) == ([], None)
    case = Case()
    rewritten(case, contest.REWRITES + 2)
    assert await case.verdict() == contest.REWRITES + 2
    assert len(pauses) == 3
    assert "another host has our public IP since 2" in case.health.degraded
    assert "--public-ip" in case.health.degraded
    assert len(caplog.records) == 1


async def test_a_key_that_says_what_we_say_is_nobody_elses_writing(pauses):
    case = Case()
    case.keeper.step = 50
    rewritten(case, contest.REWRITES + 2)
    assert await case.verdict() == contest.REWRITES + 2
    assert (pauses, case.health.degraded) == ([], None)


async def test_another_writer_that_has_gone_is_forgotten(pauses, monkeypatch):
    monkeypatch.setattr(contest, "QUIET_S", 0.05)
    case = Case()
    rewritten(case, contest.REWRITES)
    running = asyncio.create_task(case.judge.run())
    async with asyncio.timeout(10):
        while not case.health.degraded:  # noqa: ASYNC110  (nobody signals it)
            await asyncio.sleep(0.001)
        while case.health.degraded:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    case.judge.changed(event("PUT", 100 * contest.REWRITES + 50))
    async with asyncio.timeout(10):
        while case.keeper.renewed <= contest.REWRITES:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert case.health.degraded is None, "it is counted anew"
    running.cancel()
