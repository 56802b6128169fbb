"""What one part of an overlay has left on this host, and how it goes: the word that `cleanup` and its parts share.

Knows no part.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something found. Whoever finds it changes nothing."""

    what: tuple[str, ...]
    """Its names, a row of the table each; all go at once."""
    why: str
    """What shows that an overlay has left it."""
    remove: Callable[[], Awaitable[object]]
    """Removes it. Raises UdpBackendError."""
    alone: str = ""
    """Why it is not removed; empty if it is."""
    shared: bool = True
    """Whether another overlay's daemon, flanneld for example, may use it as its own."""
    clue: bool = False
    """Whether other leftovers are known by it: it goes only if all of them went."""

    @property
    def action(self) -> str:
        """What becomes of it."""
        return f"left alone: {self.alone}" if self.alone else "remove"
