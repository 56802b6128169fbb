"""What a check says: a finding in an operator's words, or why it could not look.

Owns these two values and the order of findings. Must not know any check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

Severity = Literal["down", "part", "risk"]
"""`down`: pods of this node reach nobody, or cannot start. `part`: some pods, peers or packets are concerned. `risk`:
it works now, and need not go on to."""

WORST_FIRST: tuple[Severity, ...] = ("down", "part", "risk")

SHOWN = 5
"""So many of a long list are named."""


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong."""

    severity: Severity
    what: str
    """In one sentence, without the proof."""
    evidence: str
    """What was seen, with names and values."""
    cure: str
    """What an operator can do about it."""

    @property
    def clause(self) -> str:
        """As the daemon's status says it."""
        return f"{self.what} ({self.evidence})"


class NotChecked(msgspec.Struct, frozen=True):
    """Something that could not be looked at, or not wholly."""

    why: str


Results = Sequence[Finding | NotChecked]
"""What a check returns: nothing when all is well."""


def named(items: Sequence[str], shown: int = SHOWN) -> str:
    """The first of them by semicolons, and how many more there are."""
    more = f"; and {len(items) - shown} more" if len(items) > shown else ""
    return "; ".join(items[:shown]) + more


def count(number: int, noun: str) -> str:
    """`1 peer`, `2 peers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
