"""Keeping our lease: its time is started anew before it ends, and a key that has vanished is put back.

Owns the clock of it. What is left of a lease is asked from etcd, which alone knows: every ten minutes, and when by our
own reckoning it is time to renew. That reckoning goes by CLOCK_BOOTTIME, which counts a suspend and which nobody sets,
and sleeps in slices, because the event loop's own clock stands still in a suspend. So a host that wakes up looks within
one slice; a virtual machine that was stopped without any of its clocks noticing, within ten minutes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from random import SystemRandom

import msgspec

from udpbackend.errors import LeaseLostError, RegistryError
from udpbackend.subnets.etcd.acquire import TRIES
from udpbackend.subnets.etcd.own import Own, Writer, boottime
from udpbackend.subnets.etcd.values import KeyValue

log = logging.getLogger(__name__)

LOOK_S = 600.0
SLICE_S = 10.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class Keeper:
    """Keeps one lease ours. `own` is what is known of it."""

    def __init__(
        self,
        writer: Writer,
        own: Own,
        margin_s: float,
        *,
        clock: Callable[[], float] = boottime,
        slice_s: float = SLICE_S,
    ) -> None:
        """`margin_s`: so long before its end it is renewed."""
        self.own = own
        self.problem: str | None = None
        """Why it could not be looked after the last time."""
        self._writer = writer
        self._margin_s = margin_s
        self._clock = clock
        self._slice_s = slice_s
        self._lock = asyncio.Lock()
        self._random = SystemRandom()

    async def run(self) -> None:
        """Renews until cancelled. Raises LeaseLostError."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._look()
            except RegistryError as error:
                self._complain(str(error))
                await asyncio.sleep(pause_s * self._random.uniform(0.5, 1))
                # However short the margin is, there is time for ten attempts in it.
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S, max(FIRST_PAUSE_S, self._margin_s / 10))
            else:
                self.problem, pause_s = None, FIRST_PAUSE_S
                await self._sleep_until(self._next_look())

    async def renew(self) -> None:
        """Makes sure that our key stands and has its full time: put back if it is gone, taken again if it was changed.

        To be called as well when our key has vanished without anybody having deleted it. Raises LeaseLostError if its
        subnet is somebody else's now, RegistryError.
        """
        async with self._lock:
            for _ in range(TRIES):
                kv = await self._writer.store.client.get(self.own.key)
                own = await (self._take_again(kv) if kv else self._put_back())
                if own:
                    await self._settle(own)
                    return
        raise RegistryError(f"etcd: {self.own.key.decode()} changes faster than it can be renewed")

    async def _look(self) -> None:
        if not self.own.lease_id:
            return
        began = self._clock()
        left_s = await self._writer.store.client.lease_time_to_live(self.own.lease_id)
        if left_s > self._margin_s:
            self.own = msgspec.structs.replace(self.own, expires=began + left_s)
            return
        await self.renew()
        log.info("renewed the lease of %s", self.own.lease.subnet)

    def _next_look(self) -> float:
        now = self._clock()
        usual = now + LOOK_S * self._random.uniform(0.8, 1)
        return max(now + FIRST_PAUSE_S, min(usual, self.own.expires - self._margin_s))

    async def _take_again(self, kv: KeyValue) -> Own | None:
        held = self._writer.store.read(kv)
        if held is None or held.lease.public_ip != self.own.lease.public_ip:
            whose = held.lease.public_address if held else "nobody"
            raise LeaseLostError(f"etcd: our subnet {self.own.lease.subnet} belongs to {whose} now")
        return await self._writer.retake(held, self.own.value)

    async def _put_back(self) -> Own | None:
        store, lease = self._writer.store, self.own.lease
        for held in (await store.leases()).held:
            if any(one.overlaps(two) for one in lease.subnets for two in held.lease.subnets):
                raise LeaseLostError(
                    f"etcd: our subnet {lease.subnet} was given to {held.lease.public_address} while our key was gone"
                )
        alive = self.own.lease_id and await store.client.lease_keep_alive(self.own.lease_id)
        own = await self._writer.create(
            (lease.subnet, lease.ipv6_subnet), self.own.value, self.own.lease_id if alive else 0
        )
        if own:
            log.warning("our key %s was gone: put back", own.key.decode())
        return own

    async def _settle(self, own: Own) -> None:
        before, self.own = self.own, own
        if before.lease_id not in (0, own.lease_id):
            with suppress(RegistryError):  # it would end by itself
                await self._writer.store.client.lease_revoke(before.lease_id)

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("the lease of %s cannot be looked after: %s", self.own.lease.subnet, problem)
        self.problem = problem

    async def _sleep_until(self, when: float) -> None:
        while (left_s := when - self._clock()) > 0:  # noqa: ASYNC110  (what it waits for is a clock nobody signals)
            await asyncio.sleep(min(left_s, self._slice_s))
