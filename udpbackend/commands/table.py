"""Text for a terminal: columns without borders, quantities in few characters, colour where it is wanted.

Knows nothing of what it prints.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, TextIO

NONE = "<none>"

CODES = {"good": "32", "warn": "33", "bad": "31", "strong": "1"}


class Palette:
    """Paints a text by what it means, or leaves it as it is."""

    def __init__(self, *, on: bool) -> None:
        self.on = on

    @classmethod
    def choose(cls, when: Literal["auto", "always", "never"], out: TextIO) -> Palette:
        """`auto` paints on a terminal that can, unless NO_COLOR is set to anything."""
        able = out.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
        return cls(on=when == "always" or (when == "auto" and able))

    def paint(self, text: str, meaning: str) -> str:
        """The text in the colour of `good`, `warn`, `bad` or `strong`."""
        return f"\x1b[{CODES[meaning]}m{text}\x1b[0m" if self.on else text


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table: UPPER-CASE headers, at least two blanks between columns; None and "" become `<none>`."""
    cells = [[NONE if cell in (None, "") else printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [list(headers), *cells]
    ]


def printable(text: str) -> str:
    """The text without control characters: a node's name in a registry is not ours, and this is a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def binary(count: float) -> str:
    """Bytes in few characters: `512B`, `1.4KiB`, `3.0GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            break
        if unit != "TiB":
            count /= 1024
    return f"{count:.0f}{unit}" if unit == "B" else f"{count:.1f}{unit}"


def decimal(count: float, unit: str) -> str:
    """A rate in few characters: `0 b/s`, `12.3 Mb/s`."""
    for prefix in ("", "k", "M", "G", "T"):
        if count < 1000 or prefix == "T":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if not prefix else f"{count:.1f} {prefix}{unit}"
