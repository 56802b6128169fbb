"""Following etcd: a list, then every change, and a list again whenever a change may have been missed.

`follow` owns the way back after a loss of any kind: a compaction, a lost leader, an endpoint gone, an etcd that was
restarted, emptied or replaced. All of them end in a fresh list, since only that is certainly right: a resumed watch
does not show that etcd has lost its data and grown past the old revision meanwhile.

`Snapshots` owns the pace. Changes are folded in as they come, and snapshots are taken as the consumer asks for them,
none when a change has left all leases as they were, and with a pause of SNAPSHOT_INTERVAL_S after each but the first.
What a daemon makes of the first is its whole start: nodes that have joined meanwhile send to it already, and it drops
their packets until it knows them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Protocol

from udpbackend.errors import RegistryError
from udpbackend.model import Snapshot
from udpbackend.subnets.etcd.client import Client
from udpbackend.subnets.etcd.health import Backoff, Health, persist
from udpbackend.subnets.etcd.own import boottime
from udpbackend.subnets.etcd.store import Store
from udpbackend.subnets.etcd.values import Batch, CompactedError, Event, Range
from udpbackend.subnets.etcd.view import GRACE_S, View

log = logging.getLogger(__name__)

SNAPSHOT_INTERVAL_S = 0.1

SPREAD_S_PER_KEY = 0.002
"""After a loss all nodes want a list at once. With 5,000 of them this is 500 lists of 0.6 MB in a second."""

AT_A_STRETCH = 200
"""So many changes are folded in before the loop gets its turn, which takes 2 ms at most."""

COMPLAINTS_AT_ONCE = 10


async def follow(
    client: Client, prefix: bytes, tell: Callable[[RegistryError | None], None]
) -> AsyncGenerator[Range | Batch, None]:
    """All keys that begin with `prefix`, then what becomes of them; never ends by itself.

    A list replaces all that was said before it. `tell` is told why etcd cannot be followed, and None when it can.
    """
    backoff, keys = Backoff(), 0
    while True:
        try:
            listing = await client.get_prefix(prefix)
            keys = len(listing.items)
            yield listing
            async with aclosing(client.watch(prefix, listing.revision + 1)) as batches:
                async for batch in batches:
                    _require_continuation(client, listing, batch)
                    tell(None)
                    backoff.reset()
                    yield batch
        except CompactedError as error:
            log.info("%s; listing again", error)
        except RegistryError as error:
            tell(error)
        await backoff.pause(keys * SPREAD_S_PER_KEY)


def _require_continuation(client: Client, listing: Range, batch: Batch) -> None:
    """Otherwise the watch would be silent until etcd has caught up with a revision it had before."""
    if batch.cluster_id != listing.cluster_id:
        raise RegistryError(f"etcd {client.endpoint}: it has become another cluster")
    if batch.revision < listing.revision:
        raise RegistryError(
            f"etcd {client.endpoint}: it is at revision {batch.revision}, and was at {listing.revision} before"
        )


class Observer(Protocol):
    """Who is told of what happens to our own key."""

    key: bytes

    def listed(self, listing: Range, since: int, reset: str | None) -> None:
        """There was a fresh list. What happened up to revision `since` was told already."""

    def changed(self, event: Event) -> None:
        """Our key was changed."""


class Snapshots:
    """What `view` becomes as etcd goes on."""

    def __init__(
        self,
        store: Store,
        view: View,
        health: Health,
        observer: Observer,
        *,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self.revision = 0
        """That of the last snapshot: etcd's own, but growing through a reset."""
        self._store = store
        self._view = view
        self._health = health
        self._observer = observer
        self._clock = clock
        self._news = asyncio.Event()
        self._lock = asyncio.Lock()
        """Held by whoever works on the view, perhaps in a thread: thousands of leases take long to go through."""

    async def stream(self) -> AsyncGenerator[Snapshot, None]:
        """The first as soon as etcd has answered, then one after each change; never ends by itself."""
        following = asyncio.create_task(self._follow(), name="etcd leases")
        following.add_done_callback(lambda _: self._news.set())
        pause_s = 0.0
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                if following.done():
                    following.result()
                if await self._settle():
                    self.revision = max(self.revision + 1, self._view.revision)
                    yield Snapshot(self._view.leases, self.revision)
                    await asyncio.sleep(pause_s)
                    pause_s = SNAPSHOT_INTERVAL_S
        finally:
            following.cancel()
            await asyncio.wait((following,))

    async def _follow(self) -> None:
        tell = partial(self._health.tell, "cannot follow the leases")
        async with aclosing(follow(self._store.client, self._store.keys.subnets, tell)) as told:
            async for said in told:
                past = await self._past(said) if isinstance(said, Range) else None
                async with self._lock:
                    await (self._take_list(said, past) if isinstance(said, Range) else self._take_changes(said.events))
                self._health.synced()
                if self._view.unsettled:
                    self._news.set()

    async def _past(self, listing: Range) -> Range | None:
        """What etcd says today of the last revision that we saw, if a list makes that a question and it remembers."""
        async with self._lock:
            if not await asyncio.to_thread(self._view.wants_past, listing):
                return None

        async def attempt() -> Range | None:
            try:
                return await self._store.client.get_prefix(self._store.keys.subnets, self._view.revision)
            except CompactedError as error:
                log.info("%s; leases that are missing are taken for deleted", error)
                return None

        # Missing leases are not dropped before etcd has answered.
        return await persist(attempt, partial(self._health.tell, "cannot read what etcd knew before"))

    async def _take_list(self, listing: Range, past: Range | None) -> None:
        since = self._view.revision
        reset = await asyncio.to_thread(self._view.listed, listing, self._clock(), past)
        if reset:
            log.warning(
                "etcd has lost its data or stands on an older copy: %s; missing leases, kept for %g h: %d",
                reset, GRACE_S / 3600, self._view.kept,
            )  # fmt: skip
        self._observer.listed(listing, since, reset)

    async def _take_changes(self, events: tuple[Event, ...]) -> None:
        for i, event in enumerate(events, 1):
            self._view.fold(event)
            if event.kv.key == self._observer.key:
                self._observer.changed(event)
            if i % AT_A_STRETCH == 0:
                await asyncio.sleep(0)

    async def _settle(self) -> bool:
        async with self._lock:
            differs = await asyncio.to_thread(self._view.settle, self._clock())
            complaints = self._view.complaints()
        for complaint in complaints[:COMPLAINTS_AT_ONCE]:
            log.warning("%s", complaint)
        if len(complaints) > COMPLAINTS_AT_ONCE:
            log.warning("and %d more like these", len(complaints) - COMPLAINTS_AT_ONCE)
        return differs
