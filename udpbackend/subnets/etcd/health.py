"""How the registry fares: what is wrong just now and since when, how old our view is, and when to try again.

Owns the log lines about it: one when something begins to be wrong, one for each further reason, one when it is over,
however often it is tried. Knows nothing of etcd.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from random import SystemRandom
from typing import TypeVar

from udpbackend.errors import RegistryError

T = TypeVar("T")

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Backoff:
    """Pauses between attempts: twice as long each time, and never the same for two hosts."""

    def __init__(self) -> None:
        self._next_s = FIRST_PAUSE_S
        self._random = SystemRandom()

    async def pause(self, spread_s: float = 0.0) -> None:
        """Waits before the next attempt: about a second at first, half a minute in the end.

        `spread_s`: up to so much longer, at random, where many hosts would try at once.
        """
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, LONGEST_PAUSE_S)
        await asyncio.sleep(self._random.uniform(0.5, 1.0) * pause_s + self._random.uniform(0.0, spread_s))

    def reset(self) -> None:
        """An attempt has succeeded."""
        self._next_s = FIRST_PAUSE_S


async def persist(attempt: Callable[[], Awaitable[T]], tell: Callable[[Exception | None], None]) -> T:
    """Tries until it succeeds; `tell` is told each time. Only RegistryError is a reason to try again."""
    backoff = Backoff()
    while True:
        try:
            result = await attempt()
        except RegistryError as error:
            tell(error)
            await backoff.pause()
        else:
            tell(None)
            return result


class Trouble:
    """One thing that is wrong."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.began = datetime.now(UTC)
        self.began_s = time.monotonic()
        self._told = {reason}

    def is_news(self, reason: str) -> bool:
        """Notes the reason of the last attempt; whether it has not been told yet."""
        self.reason = reason
        news = reason not in self._told
        self._told.add(reason)
        return news


class Health:
    """What is wrong, by what cannot be done, in words: `cannot follow the leases`."""

    def __init__(self) -> None:
        self.last_sync = 0.0
        """When the view was last known to be etcd's own, in seconds since the epoch; 0 for never."""
        self._troubles: dict[str, Trouble] = {}

    @property
    def degraded(self) -> str | None:
        """All that is wrong, with since when and why; None if nothing is."""
        return "; ".join(f"{what} since {it.began:%FT%TZ}: {it.reason}" for what, it in self._troubles.items()) or None

    def synced(self) -> None:
        """Our view is etcd's own now."""
        self.last_sync = time.time()

    def tell(self, what: str, error: Exception | None) -> None:
        """What has become of an attempt to do `what`: an error, or None for success."""
        trouble = self._troubles.get(what)
        if error is None:
            if trouble is not None:
                del self._troubles[what]
                log.info("over after %.0f s: %s", time.monotonic() - trouble.began_s, what)
            return
        if trouble is None:
            self._troubles[what] = Trouble(str(error))
        if trouble is None or trouble.is_news(str(error)):
            log.warning("%s: %s", what, error)
