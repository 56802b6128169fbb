"""Following etcd, played by a script: what is asked, what is told, and how many snapshots come of it."""

import asyncio
import logging
from contextlib import aclosing

import pytest

from udpbackend.errors import RegistryError
from udpbackend.model import Attributes, Lease, Prefix
from udpbackend.subnets.config import parse_config
from udpbackend.subnets.etcd import health, watch
from udpbackend.subnets.etcd.health import Health, persist
from udpbackend.subnets.etcd.keys import Keys, encode
from udpbackend.subnets.etcd.values import Batch, CompactedError, Event, KeyValue, Range
from udpbackend.subnets.etcd.view import View
from udpbackend.subnets.etcd.watch import Snapshots, follow

KEYS = Keys("/n")
CONFIG = parse_config('{"Network":"10.5.0.0/16"}')
OWN = Lease(Prefix.parse("10.5.200.0/24"), 0xC00002FA)
DEADLINE_S = 10.0
AWAY = RegistryError("etcd http://192.0.2.9:2379: away")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(health, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(health, "LONGEST_PAUSE_S", 0.002)


def lease(number, revision, public_ip=None):
    text = encode(Attributes(public_ip or f"192.0.2.{number}"))
    return KeyValue(KEYS.subnets + b"10.5.%d.0-24" % number, text, revision, revision, 1, 9)


def put(number, revision, public_ip=None):
    return Event("PUT", lease(number, revision, public_ip))


def batch(revision, *events, cluster_id=1):
    return Batch(revision, cluster_id, events)


class Script:
    """A client that answers by its script: each list, then what a watch says; an error ends either."""

    endpoint = "http://192.0.2.9:2379"

    def __init__(self, *turns):
        self._turns = list(turns)
        self.watched = []
        self.closed = 0
        self.pasts, self.asked = [], []
        """What it says of an earlier revision, one after the other, and of which it was asked."""

    async def get_prefix(self, _prefix, revision=0):
        if revision:
            self.asked.append(revision)
            if isinstance(past := self.pasts.pop(0), Exception):
                raise past
            return past
        listing, self._said = self._turns.pop(0) if self._turns else (None, ())
        if listing is None:
            await asyncio.Event().wait()
        if isinstance(listing, Exception):
            raise listing
        return listing

    async def watch(self, prefix, revision):
        self.watched.append((prefix, revision))
        try:
            for each in self._said:
                if isinstance(each, Exception):
                    raise each
                await asyncio.sleep(0)
                yield each
            await asyncio.Event().wait()
        finally:
            self.closed += 1


async def heard(script, count):
    """The first things that `follow` hands over, and what it tells meanwhile."""
    told, found = [], []
    async with asyncio.timeout(DEADLINE_S), aclosing(follow(script, b"/n/", told.append)) as said:
        async for each in said:
            found.append(each)
            if len(found) == count:
                return found, told
    raise AssertionError


async def test_a_list_then_the_watch_from_the_next_revision():
    listing, first, second = Range(5, 1, ()), batch(5), batch(7, put(1, 7))
    script = Script((listing, [first, second]))
    assert await heard(script, 3) == ([listing, first, second], [None, None])
    assert script.watched == [(b"/n/", 6)]
    assert script.closed == 1


async def test_after_a_loss_another_list():
    again = Range(9, 1, ())
    script = Script((AWAY, ()), (Range(5, 1, ()), [batch(5), AWAY]), (AWAY, ()), (again, [batch(9)]))
    found, told = await heard(script, 4)
    assert found[2:] == [again, batch(9)]
    assert told == [AWAY, None, AWAY, AWAY, None]
    assert script.watched == [(b"/n/", 6), (b"/n/", 10)]


async def test_a_compaction_is_no_trouble():
    script = Script((Range(5, 1, ()), [CompactedError("compacted", 8)]), (Range(9, 1, ()), [batch(9)]))
    found, told = await heard(script, 3)
    assert [it.revision for it in found] == [5, 9, 9]
    assert told == [None]


@pytest.mark.parametrize(
    ("strange", "words"),
    [(batch(4), "it is at revision 4, and was at 5 before"), (batch(9, cluster_id=2), "it has become another cluster")],
)
async def test_what_is_no_continuation_is_listed_again(strange, words):
    script = Script((Range(5, 1, ()), [strange, batch(5)]), (Range(2, 2, ()), []))
    found, told = await heard(script, 2)
    assert [it.revision for it in found] == [5, 2]
    assert words in str(told[0])


class Observer:
    """Notes what is told of our own key."""

    key = KEYS.key((OWN.subnet, None))

    def __init__(self):
        self.told = []

    def listed(self, listing, since, reset):
        self.told.append(("listed", listing.revision, since, reset is not None))

    def changed(self, event):
        self.told.append((event.kind, event.kv.mod_revision))


class Store:
    keys = KEYS

    def __init__(self, client):
        self.client = client


class Scene:
    """Snapshots of a script; time stands still for leases that are kept."""

    def __init__(self, *turns):
        self.script = Script(*turns)
        self.health, self.observer = Health(), Observer()
        view = View(KEYS, CONFIG, OWN)
        self.snapshots = Snapshots(Store(self.script), view, self.health, self.observer, clock=lambda: 0.0)

    async def collect(self, done):
        """Snapshots up to the one that `done` says yes to."""
        found = []
        async with asyncio.timeout(DEADLINE_S), aclosing(self.snapshots.stream()) as stream:
            async for snapshot in stream:
                found.append(snapshot)
                if done(snapshot):
                    return found
        raise AssertionError


def has(count):
    return lambda snapshot: len(snapshot.leases) == count


async def test_the_first_snapshot_is_the_list():
    [first] = await Scene((Range(5, 1, (lease(1, 3), lease(2, 4))), [])).collect(has(3))
    assert first.revision == 5


async def test_a_network_of_our_own_has_a_snapshot_too():
    [first] = await Scene((Range(5, 1, ()), [])).collect(has(1))
    assert first.leases == (OWN,)


async def test_many_changes_make_few_snapshots(monkeypatch):
    monkeypatch.setattr(watch, "SNAPSHOT_INTERVAL_S", 0.2)
    changes = [batch(5 + i, put(1 + i, 5 + i)) for i in range(150)]
    scene = Scene((Range(4, 1, ()), [batch(4), *changes]))
    assert len(await scene.collect(has(151))) <= 3
    assert scene.script.closed == 1


async def test_what_comes_while_a_daemon_starts_by_the_first_waits_for_nothing(monkeypatch):
    """Whoever joins meanwhile sends to it already."""
    monkeypatch.setattr(watch, "SNAPSHOT_INTERVAL_S", 10 * DEADLINE_S)
    scene = Scene((Range(4, 1, (lease(1, 3),)), [batch(4), batch(5, put(2, 5))]))
    async with asyncio.timeout(DEADLINE_S), aclosing(scene.snapshots.stream()) as stream:
        assert [len((await anext(stream)).leases) for _ in range(2)] == [2, 3]


async def test_renewals_make_none():
    renewals = [batch(5 + i, put(1, 5 + i)) for i in range(150)]
    renewals = [batch(it.revision, Event("PUT", _renewed(it.events[0].kv))) for it in renewals]
    scene = Scene((Range(4, 1, (lease(1, 3),)), [*renewals, batch(300, put(2, 300))]))
    assert [len(it.leases) for it in await scene.collect(has(3))] == [2, 3]


def _renewed(kv):
    """The same key written again."""
    return KeyValue(kv.key, kv.value, kv.mod_revision, 3, 2, 10)


async def test_a_long_batch_is_one_change():
    scene = Scene((Range(4, 1, ()), [batch(4), batch(900, *(put(1 + i, 5 + i) for i in range(100)))]))
    assert [len(it.leases) for it in await scene.collect(has(101))] == [1, 101]


async def test_revisions_grow_through_a_reset(caplog):
    before, after = Range(500, 1, (lease(1, 3),)), Range(4, 1, (lease(2, 4),))
    scene = Scene((before, [batch(500), AWAY]), (after, [batch(4)]))
    found = await scene.collect(has(3))
    assert [it.revision for it in found] == [500, 501]
    assert scene.observer.told == [("listed", 500, 0, False), ("listed", 4, 500, True)]
    [told] = [it.message for it in caplog.records if "lost its data" in it.message]
    assert told.endswith("its revision was 500 and is 4; missing leases, kept for 24 h: 1")


async def test_nobody_is_dropped_before_etcd_has_said_what_it_knew():
    """Once for a list that lacks a lease; those that lack none ask nothing."""
    one, two = lease(1, 3), lease(2, 4)
    turns = [(Range(5, 1, (one, two)), [batch(5), AWAY]), (Range(9, 1, (one, two)), [batch(9), AWAY])]
    scene = Scene(*turns, (Range(12, 1, (one,)), [batch(12), batch(13, put(3, 13))]))
    scene.script.pasts = [AWAY, AWAY, Range(9, 1, (one,))]
    found = await scene.collect(lambda it: it.revision >= 13)
    assert [len(it.leases) for it in found] == [3, 4]
    assert scene.script.asked == [9, 9, 9]
    assert scene.health.degraded is None
    again = Scene(*turns, (Range(12, 1, (one,)), []))
    again.script.pasts = [CompactedError("compacted", 0)]
    assert [len(it.leases) for it in await again.collect(has(2))] == [3, 2]


async def test_our_own_key_is_told_of():
    ours = KeyValue(Observer.key, b"x", 5, 5, 1, 9)
    gone = KeyValue(Observer.key, b"", 6, 0, 0, 0)
    events = [Event("PUT", ours), Event("DELETE", gone), put(1, 7)]
    scene = Scene((Range(4, 1, ()), [batch(4), batch(7, *events)]))
    await scene.collect(has(2))
    assert scene.observer.told[1:] == [("PUT", 5), ("DELETE", 6)]


async def test_complaints_are_bounded(caplog):
    bad = tuple(KeyValue(KEYS.subnets + b"bad%d" % i, b"x", 3, 3, 1, 9) for i in range(100))
    await Scene((Range(4, 1, bad), [])).collect(has(1))
    assert len(caplog.records) == watch.COMPLAINTS_AT_ONCE + 1
    assert caplog.records[-1].message == "and 90 more like these"


async def test_what_should_not_happen_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        await Scene((ZeroDivisionError("a bug"), [])).collect(has(99))


async def test_trouble_is_told_when_it_begins_when_it_changes_and_when_it_is_over(caplog):
    caplog.set_level(logging.INFO)
    state = Health()
    state.tell("cannot follow", None)
    for text in ("refused", "refused", "silent", "refused"):
        state.tell("cannot follow", RegistryError(text))
    state.tell("restart needed", RegistryError("Network changed"))
    assert state.degraded is not None
    first, second = state.degraded.split("; ")
    assert first.startswith("cannot follow since 2")
    assert first.endswith("Z: refused")
    assert second.endswith("Z: Network changed")
    state.tell("cannot follow", None)
    state.tell("restart needed", None)
    assert state.degraded is None
    assert [it.message for it in caplog.records] == [
        "cannot follow: refused",
        "cannot follow: silent",
        "restart needed: Network changed",
        "over after 0 s: cannot follow",
        "over after 0 s: restart needed",
    ]


async def test_only_the_registry_is_asked_again():
    errors, told = [AWAY, AWAY], []

    async def attempt():
        if errors:
            raise errors.pop()
        return 7

    assert await persist(attempt, told.append) == 7
    assert told == [AWAY, AWAY, None]
    errors.append(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await persist(attempt, told.append)


async def test_pauses_grow_and_differ(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(health, "FIRST_PAUSE_S", 1.0)
    monkeypatch.setattr(health, "LONGEST_PAUSE_S", 30.0)
    monkeypatch.setattr(health.asyncio, "sleep", sleep)
    backoff = health.Backoff()
    for _ in range(8):
        await backoff.pause()
    backoff.reset()
    await backoff.pause(10.0)
    for longest, pause in zip((1, 2, 4, 8, 16, 30, 30, 30), slept, strict=False):
        assert longest / 2 <= pause <= longest
    assert 0.5 <= slept[-1] <= 11
