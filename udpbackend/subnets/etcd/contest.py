"""Somebody else writes our key again and again: that is told, and answered less and less often.

Two hosts with one public IP share one key. Where they have different things to say there (a VTEP's MAC, a public IPv6)
each makes it say its own, as fast as etcd can write, and every node of the network hears of it each time.

Owns the count, the pauses and what is told. Knows neither etcd nor the key.
"""

from __future__ import annotations

import asyncio

from udpbackend.errors import RegistryError
from udpbackend.subnets.etcd.health import Backoff, Health

REWRITES = 3
"""With so many it is told, and we pause. An administrator's hand writes our key once or twice; another host that has it
for its own does so after each writing of ours."""

QUIET_S = 120.0
"""So long after the last time it is over. Each of two hosts pauses half a minute at most and then writes again, so one
that is still there is heard of well before, even where etcd is away for a moment."""

CONTESTED = "another host has our public IP"
ADVICE = "it writes its own lease over ours again and again; give each host a public IP of its own (--public-ip)"


class Contest:
    """Is told of each writing of ours that undoes another's; `close` when nobody tells it any more."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._count = 0
        self._backoff = Backoff()
        self._ending: asyncio.TimerHandle | None = None

    async def undone(self) -> None:
        """We have written our key over what somebody else had written there; returns when we may do so again."""
        self.close()
        self._ending = asyncio.get_running_loop().call_later(QUIET_S, self._over)
        self._count += 1
        if self._count >= REWRITES:
            self._health.tell(CONTESTED, RegistryError(ADVICE))
            await self._backoff.pause()

    def close(self) -> None:
        """Waits for no end any more."""
        if self._ending is not None:
            self._ending.cancel()

    def _over(self) -> None:
        self._count = 0
        self._backoff.reset()
        self._health.tell(CONTESTED, None)
