"""Keeps in the kernel what a backend wants there: a look when the leases change, when something else does, and in turn.

Owns when is looked, and what is said of it: every repair, and every problem once; and that a repair which does not last
is a problem. Must not know what a look does: it is handed the coroutine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from udpbackend.errors import HostError
from udpbackend.host.lasting import Lasting
from udpbackend.host.netlink import Netlink

log = logging.getLogger(__name__)

FOLLOW_S = 0.2
"""Between two changes of the leases that are followed at least."""
PACE_S = 1.0
"""Between two looks at least: on a host whose links change all the time looking must not become all we do."""
PROBLEMS_SHOWN = 10
"""So many are named, however many nodes they are about."""


class Look(NamedTuple):
    """What a look has done, and what it could not mend, in words."""

    done: Sequence[str] = ()
    problems: Sequence[str] = ()


class Keeper:
    """`start`, then `follow` whenever what is wanted has changed, while `run` repairs."""

    def __init__(self, netlink: Netlink, look: Callable[[], Awaitable[Look]], every_s: float) -> None:
        """`every_s`: how often is looked where nothing tells of a change."""
        self._netlink = netlink
        self._changed = asyncio.Event()
        self._look = look
        self._every_s = every_s
        self._turn = asyncio.Lock()
        self._asked = self._followed = 0
        self._followed_at = 0.0
        self._known: frozenset[str] = frozenset()
        self._lasting = Lasting()
        self.problems: tuple[str, ...] = ()
        """What is wrong and was not mended by the last look."""

    async def start(self) -> None:
        """The first look. Raises HostError, where later ones would tell of a problem and try again."""
        self._changed = self._netlink.changes()  # before the look: `run`, which follows them, comes later
        async with self._turn:
            self._note(await self._look(), repair=False)

    async def follow(self) -> None:
        """Looks now, or soon: one look does for all calls that were waiting for it."""
        clock = asyncio.get_running_loop().time
        self._asked = mine = self._asked + 1
        async with self._turn:
            if self._followed >= mine:
                return
            await asyncio.sleep(max(0.0, self._followed_at + FOLLOW_S - clock()))
            self._followed = self._asked
            await self._try(repair=False)
            self._followed_at = clock()

    async def run(self) -> None:
        """Repairs until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._changed.wait()
            self._changed.clear()
            async with self._turn:
                # What the leases ask for since the last look is no repair, whoever comes to do it.
                await self._try(repair=self._asked == self._followed)
            await asyncio.sleep(PACE_S)

    async def _try(self, *, repair: bool) -> None:
        try:
            found = await self._look()
        except HostError as error:
            found = Look(problems=(str(error),))
        self._note(found, repair=repair)

    def _note(self, found: Look, *, repair: bool) -> None:
        words = "repaired: %s" if repair else "%s"
        for what in self._lasting.note(found.done) if repair else found.done:
            log.info(words, what)
        problems = (*found.problems, *self._lasting.problems)
        new = [problem for problem in problems if problem not in self._known]
        for problem in _shown(new):
            log.warning("%s", problem)
        self._known = frozenset(problems)
        self.problems = _shown(problems)


def _shown(problems: Sequence[str]) -> tuple[str, ...]:
    more = len(problems) - PROBLEMS_SHOWN
    return (*problems[:PROBLEMS_SHOWN], *([f"and {more} more"] if more > 0 else []))
