"""What it means that our key has changed or is gone, and what is done about it.

| our key                                                       | then                                               |
|---------------------------------------------------------------|----------------------------------------------------|
| was deleted while its lease had time left                     | an administrator wants us gone: LeaseRevokedError  |
| was deleted when its time was over (this host was asleep)     | it is put back                                     |
| is missing, and etcd no longer knows why (compaction)         | it is put back                                     |
| is missing after a reset (etcd has lost its data)             | it is put back                                     |
| was written by somebody else                                  | it is looked at, and made ours again if it still is|
| was written by somebody else again and again                  | likewise, but it is told, and done less often      |

Whoever finds the subnet in other hands raises LeaseLostError. Owns no connection and no clock of the lease: both are
the keeper's. What is told is judged one after the other, so that each is seen with all that was done before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Literal

import msgspec

from udpbackend.errors import LeaseRevokedError
from udpbackend.subnets.etcd.client import Client
from udpbackend.subnets.etcd.contest import Contest
from udpbackend.subnets.etcd.health import Health, persist
from udpbackend.subnets.etcd.own import boottime
from udpbackend.subnets.etcd.renew import Keeper
from udpbackend.subnets.etcd.values import CompactedError, Event, Range

SLACK_S = 60.0
"""A lease that has no more than this left may have ended: our clock and etcd's differ by some seconds in a day. We
renew long before that, so it is only reached when etcd was out of reach or this host asleep."""

ASK_S = 30.0
"""After so long without an answer etcd knows of no deletion."""


class Case(msgspec.Struct, frozen=True):
    """What was told of our key."""

    what: Literal["written", "deleted", "missing", "reset"]
    revision: int
    """When it was so."""
    since: int = 0
    """Of a missing key: a revision at which it was there."""


class Judge:
    """Is told of our key by a watch, and acts in `run`."""

    def __init__(
        self, client: Client, keeper: Keeper, health: Health, *, clock: Callable[[], float] = boottime
    ) -> None:
        self.key = keeper.own.key
        self._client = client
        self._keeper = keeper
        self._health = health
        self._clock = clock
        self._contest = Contest(health)
        self._cases: asyncio.Queue[Case] = asyncio.Queue()

    def listed(self, listing: Range, since: int, reset: str | None) -> None:
        """There was a fresh list. What happened up to revision `since` was told already."""
        kv = next((kv for kv in listing.items if kv.key == self.key), None)
        if reset:
            self._cases.put_nowait(Case("reset", listing.revision))
        elif kv is not None:
            self._cases.put_nowait(Case("written", kv.mod_revision))
        else:
            self._cases.put_nowait(Case("missing", listing.revision, since))

    def changed(self, event: Event) -> None:
        """Our key was changed."""
        self._cases.put_nowait(Case("written" if event.kind == "PUT" else "deleted", event.kv.mod_revision))

    async def run(self) -> None:
        """Until cancelled. Raises LeaseRevokedError, LeaseLostError."""
        tell = partial(self._health.tell, "cannot look after our lease")
        try:
            while True:
                case = await self._cases.get()
                before = self._keeper.own.mod_revision
                await persist(partial(self._judge, case), tell)
                # Later than both: it is a writing of ours. As late as the case: the key said what we say.
                if case.what == "written" and self._keeper.own.mod_revision > max(before, case.revision):
                    await self._contest.undone()
        finally:
            self._contest.close()

    async def _judge(self, case: Case) -> None:
        # Our own writing is told too, perhaps before the keeper knows that it has succeeded: to look costs little.
        if case.what != "reset" and case.revision <= self._keeper.own.mod_revision:
            return
        if not self._over() and await self._was_deleted(case):
            raise LeaseRevokedError("Lease has been revoked. Shutting down daemon.")
        await self._keeper.renew()

    def _over(self) -> bool:
        return self._keeper.own.expires - SLACK_S <= self._clock()

    async def _was_deleted(self, case: Case) -> bool:
        """Whether it was told, or etcd remembers, that our key was deleted. Raises RegistryError."""
        if case.what != "missing":
            return case.what == "deleted"
        since = max(case.since, self._keeper.own.mod_revision)
        try:
            async with asyncio.timeout(ASK_S), aclosing(self._client.watch(self.key, since + 1)) as batches:
                async for batch in batches:
                    if any(event.kind == "DELETE" and event.kv.key == self.key for event in batch.events):
                        return True
        except (CompactedError, TimeoutError):
            pass
        return False
