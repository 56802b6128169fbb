"""Repairs that do not last: somebody undoes what we put right, again and again.

Owns the count. Must not know what is repaired: a repair is the words by which it is told.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

WITHIN_S = 120.0
OFTEN = 10
"""So many repairs of one thing within that time are no accident any more."""
REMEMBERED = 64
"""Different repairs whose times are kept; beyond that the one not made for longest is forgotten."""


class Lasting:
    """Is told of every repair; says which of them do not last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, deque[float]] = {}

    def note(self, done: Iterable[str]) -> tuple[str, ...]:
        """Takes down what was just repaired; of it, what is worth a line in the log: a fight is told of elsewhere."""
        worth = []
        for what in done:
            times = self._times.pop(what, None) or deque[float](maxlen=OFTEN)
            times.append(self._clock())
            self._times[what] = times
            if not self._fought(times):
                worth.append(what)
        while len(self._times) > REMEMBERED:
            del self._times[next(iter(self._times))]
        return tuple(worth)

    @property
    def problems(self) -> tuple[str, ...]:
        """What was repaired too often of late, one clause for all of it; none where repairs last."""
        fought = [what for what, times in self._times.items() if self._fought(times)]
        if not fought:
            return ()
        more = f" and {len(fought) - 1} more" if len(fought) > 1 else ""
        return (f"repairs do not last, something undoes them: {min(fought)}{more}",)

    def _fought(self, times: deque[float]) -> bool:
        return len(times) == OFTEN and self._clock() - times[0] <= WITHIN_S
