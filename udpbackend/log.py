"""Log lines in klog's form on stderr, and a filter that keeps one message from filling the log.

Owns the format and the levels. It must not know what is logged: every module logs through
`logging.getLogger(__name__)` and none imports this one but the program's entry.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

LETTERS = {logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "F"}
"""klog has four severities; what is detail for us is information there, as with its V(n) messages."""

LIBRARIES_VERBOSITY = 4
"""From here on the libraries we use may speak below a warning, too."""

REMEMBERED = 256
"""Messages one limiter keeps apart; beyond that the oldest is forgotten, which costs at most an extra line."""


class KlogFormatter(logging.Formatter):
    """`I1123 09:45:19.609837    4711 static.py:80] message`, in local time as klog writes it."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as a line, its traceback below it."""
        letter = LETTERS.get(record.levelno, "I")
        micros = int(record.created % 1 * 1_000_000)
        when = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        place = f"{record.filename}:{record.lineno}"
        line = f"{letter}{when}.{micros:06d} {record.process or 0:7d} {place}] {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class OncePerInterval(logging.Filter):
    """Lets a message through once in `interval_s`; its next appearance says how often it was held back meanwhile.

    Messages are the same when their whole text is, level included. Add it to a logger (not to a handler of several
    loggers whose texts may coincide).
    """

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._clock = clock
        self._seen: dict[tuple[int, str], tuple[float, int]] = {}  # (when let through, held back since)
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written; appends `(repeated N times)` to one that was held back before."""
        text = record.getMessage()
        key = (record.levelno, text)
        with self._lock:
            now = self._clock()
            since, held = self._seen.get(key, (-float("inf"), 0))
            if now - since < self._interval_s:
                self._seen[key] = (since, held + 1)
                return False
            self._seen.pop(key, None)  # so that insertion order stays the order of age
            self._seen[key] = (now, 0)
            if len(self._seen) > REMEMBERED:
                del self._seen[next(iter(self._seen))]
        if held:
            record.msg = f"{text} (repeated {held} times in the last {now - since:.0f} s)"
            record.args = ()
        return True


def setup(verbosity: int, stream: TextIO | None = None) -> None:
    """Sends every logger's lines to `stream` (stderr) in klog's form; a second call replaces the first."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(KlogFormatter())
    handler.set_name("udpbackend")
    root = logging.getLogger()
    for old in [found for found in root.handlers if found.get_name() == "udpbackend"]:
        root.removeHandler(old)
    root.addHandler(handler)
    ours = logging.DEBUG if verbosity > 0 else logging.INFO
    root.setLevel(ours if verbosity >= LIBRARIES_VERBOSITY else logging.WARNING)
    logging.getLogger("udpbackend").setLevel(ours)
