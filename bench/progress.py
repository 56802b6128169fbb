"""Progress on stderr: what runs now, how much is done, and how long it will take.

Owns the estimate: what was planned for the rest, scaled by how the plan has held so far. On a terminal the line is
drawn over and over, elsewhere each is a line of its own.
"""

import sys
import time
from typing import TextIO


def clock(seconds: float) -> str:
    """125 as 2:05."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


class Progress:
    """Told the planned cost of everything at first, and of each step when it begins."""

    def __init__(self, planned_s: float, stream: TextIO = sys.stderr) -> None:
        self._planned_s = planned_s
        self._done_s = 0.0
        self._step_s = 0.0
        self._stream = stream
        self._began = time.monotonic()
        self._drawn = False

    @property
    def elapsed_s(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    def left_s(self) -> float:
        """The estimate for what is not done yet."""
        scale = max(1.0, self.elapsed_s / self._done_s) if self._done_s > 10 else 1.0
        return (self._planned_s - self._done_s) * scale

    def step(self, what: str, cost_s: float) -> None:
        """Begins a step; the one before is done."""
        self._done_s += self._step_s
        self._step_s = cost_s
        self._draw(f"[{clock(self.elapsed_s)}, {clock(self.left_s())} left] {what}")

    def say(self, what: str) -> None:
        """A line that stays."""
        self._erase()
        print(f"[{clock(self.elapsed_s)}] {what}", file=self._stream, flush=True)

    def end(self) -> None:
        """Leaves a clean line."""
        self._erase()

    def _draw(self, line: str) -> None:
        if self._stream.isatty():
            self._erase()
            print(line[:118], end="", file=self._stream, flush=True)
            self._drawn = True
        else:
            print(line, file=self._stream, flush=True)

    def _erase(self) -> None:
        if self._drawn:
            print("\r\x1b[K", end="", file=self._stream, flush=True)
            self._drawn = False
