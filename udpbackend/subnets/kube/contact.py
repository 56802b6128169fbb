"""Our contact with the API server: when it was last good, what keeps us from it, and how long to wait for the next try.

Owns the words for an outage, each logged once, and the back-off. Does not talk to the server itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import NamedTuple

from udpbackend.subnets.kube.answers import ApiError

log = logging.getLogger(__name__)


class Timing(NamedTuple):
    """Every wait of this registry, in seconds; tests choose others."""

    request_s: float = 30.0
    """How long a request may take, connecting included."""
    watch_s: float = 240.0
    """How long the API server is asked to let a watch last; up to a quarter more, so that nodes do not come at once."""
    first_s: float = 0.5
    """The first wait after a failure; each next one is twice as long."""
    most_s: float = 10.0
    patch_every_s: float = 3.0
    patch_for_s: float = 30.0
    """How often, and how long, the annotations are tried to be written at the start: flannel's numbers."""


class Backoff:
    """How long to wait after a failure: longer after each, and anew from the first after a while without any."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._next_s = timing.first_s
        self._until = 0.0

    def next_s(self, at_least_s: float = 0.0) -> float:
        """The wait that is due now, with a share of chance, so that a cluster does not come all at once.

        `at_least_s`: what the server has asked for.
        """
        now = time.monotonic()
        if now - self._until > 2 * self._timing.most_s:
            self._next_s = self._timing.first_s
        chosen = max(at_least_s, self._next_s * random.uniform(0.5, 1))  # noqa: S311 nothing is to be kept secret
        self._next_s = min(2 * self._next_s, self._timing.most_s)
        self._until = now + chosen
        return chosen


class Contact:
    """How we fare with the API server at `url`."""

    def __init__(self, url: str, timing: Timing) -> None:
        self.url = url
        self.last_sync = 0.0
        """When the view was last known to be the server's own, in seconds since the epoch."""
        self.degraded: str | None = None
        """What keeps us from it."""
        self._backoff = Backoff(timing)

    def synced(self) -> None:
        """The server has told us how things stand."""
        self.last_sync = time.time()

    def restored(self) -> None:
        """All that failed works again."""
        if self.degraded is not None:
            log.info("the API server %s answers again", self.url)
        self.degraded = None

    async def lost(self, error: ApiError) -> None:
        """Something failed; returns when it is time to try again."""
        if str(error) != self.degraded:
            log.warning("%s; what is known stays in use, trying again", error)
        self.degraded = str(error)
        await self.pause(error.retry_after_s)

    async def pause(self, at_least_s: float = 0.0) -> None:
        """Waits for the next try."""
        await asyncio.sleep(self._backoff.next_s(at_least_s))
