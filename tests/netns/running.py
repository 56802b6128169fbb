"""What can be seen of a running daemon from outside: its processor time, its memory, its log, its verdict.

Owns the reading of /proc and of the log file, and how a process is made to stand still. Must not know what a daemon
should do.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.lab.daemon import Overlay
from bench.lab.process import Process
from bench.lab.topology import Host
from bench.lab.wait import LabError, until

TICKS_S = os.sysconf("SC_CLK_TCK")


def cpu_s(process: Process) -> float:
    """Processor time used so far, of all threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def resident_bytes(process: Process) -> int:
    """Memory in use."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_share(process: Process, seconds: float) -> float:
    """How much of one processor it uses over the next seconds, which it must live through: 0.01 is one per cent."""
    before = cpu_s(process)
    try:
        status = process.wait(seconds)
    except LabError:
        return (cpu_s(process) - before) / seconds
    raise LabError(f"{process.name} ended with status {status}\n{process.tail()}")


@contextmanager
def held(process: Process) -> Iterator[None]:
    """A process stands still meanwhile; what happens, it finds when it comes to."""
    process.freeze()
    try:
        yield
    finally:
        process.send(signal.SIGCONT)


class Log:
    """What a daemon writes from now on, or the whole of its file."""

    def __init__(self, process: Process, *, whole: bool = False) -> None:
        self._path = process.stderr
        self._start = 0 if whole else self._path.stat().st_size

    def text(self) -> str:
        """All of it so far."""
        return self._path.read_bytes()[self._start :].decode()

    def lines(self, words: str) -> list[str]:
        """The lines with these words in it."""
        return [line for line in self.text().splitlines() if words in line]

    def shows(self, words: str, deadline_s: float) -> str:
        """Waits for a line with these words; the first such line."""
        try:
            return until(lambda: self.lines(words), deadline_s, f"no line says {words!r}")[0]
        except LabError as error:
            raise LabError(f"{error}\n{self.text()}") from None


def verdict(overlay: Overlay, host: Host) -> dict[str, object]:
    """State, text and reasons."""
    found: dict[str, object] = overlay.status(host)["verdict"]
    return found


def becomes(overlay: Overlay, host: Host, state: str, deadline_s: float, words: str = "") -> str:
    """Waits for a verdict of that state with these words in its text; the text."""
    last = ""

    def reached() -> bool:
        nonlocal last
        now = verdict(overlay, host)
        last = str(now["text"])
        return now["state"] == state and words in last

    try:
        until(reached, deadline_s, f"host {host.name}: not {state} {words!r}")
    except LabError as error:
        raise LabError(f"{error}; last: {last}") from None
    return last


def counter(overlay: Overlay, host: Host, name: str) -> int:
    """One counter of the status."""
    return next(int(it["value"]) for it in overlay.status(host)["counters"] if it["name"] == name)
