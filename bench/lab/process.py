"""The programs we started, and the promise that each is stopped.

Owns every child that outlives one call: it is ended by its own pid, first politely (SIGTERM), then not (SIGKILL).
Knows no namespaces: an argument list is an argument list.
"""

import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from bench.lab.cleanup import undisturbed
from bench.lab.wait import LabError, until

STOP_S = 5.0
"""How long a program may take to follow SIGTERM before it gets SIGKILL."""

FREEZE_S = 20.0
"""How long a program's threads may take to notice SIGSTOP: no time, but each needs a moment of a processor."""

TAIL_LINES = 15
"""How much of a program's log an error message quotes."""


class Process:
    """One running program; its two outputs go to files, so that it can never block on us."""

    def __init__(self, argv: Sequence[str], name: str, directory: Path) -> None:
        self.name = name
        self.argv = list(argv)
        self.stdout = directory / f"{name}.out"
        self.stderr = directory / f"{name}.err"
        with self.stdout.open("ab") as out, self.stderr.open("ab") as err:
            # A session of its own: Ctrl-C in a terminal reaches us alone, and we stop it in order.
            self._popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def send(self, number: int) -> None:
        """Sends a signal; nothing happens if it has ended already."""
        self._popen.send_signal(number)

    def freeze(self) -> None:
        """SIGSTOP, and waits until every thread of it stands still; SIGCONT lets it go on."""
        self.send(signal.SIGSTOP)
        until(self._stands_still, FREEZE_S, f"{self.name} has not stopped")

    def _stands_still(self) -> bool:
        if self.returncode is not None:
            raise LabError(f"{self.name} has ended with status {self.returncode}\n{self.tail()}")
        stats = (task / "stat" for task in Path(f"/proc/{self.pid}/task").iterdir())
        try:
            return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)
        except OSError:  # a thread that has just ended
            return False

    def wait(self, deadline_s: float) -> int:
        """Its exit status; raises LabError with the end of its log when it does not end in time."""
        try:
            return self._popen.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} has not ended within {deadline_s:g} s\n{self.tail()}") from None

    def stop(self, deadline_s: float = STOP_S) -> int:
        """SIGTERM, then SIGKILL after the deadline; returns the exit status."""
        self._popen.terminate()
        try:
            return self._popen.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()

    def tail(self) -> str:
        """The last lines it wrote, for an error message."""
        text = self.stderr.read_text(errors="replace") or self.stdout.read_text(errors="replace")
        lines = text.splitlines()[-TAIL_LINES:]
        return "\n".join(f"  {self.name}| {line}" for line in lines) or f"  {self.name}| (wrote nothing)"


class Processes:
    """Every program started through it is stopped when the context ends, whatever ended it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()

    def start(self, argv: Sequence[str], name: str) -> Process:
        """Starts a program; its output goes to `name`.out and `name`.err in the directory, appended."""
        try:
            process = Process(argv, name, self._directory)
        except OSError as error:
            raise LabError(f"cannot start {argv[0]}: {error.strerror}") from error
        self._started.append(process)
        return process

    def stop_all(self, deadline_s: float = STOP_S) -> None:
        """Stops all of them, latest first, within one deadline for all together."""
        with undisturbed():
            running = [process for process in reversed(self._started) if process.returncode is None]
            for process in running:
                with suppress(ProcessLookupError):
                    process.send(15)
            end = time.monotonic() + deadline_s
            for process in running:
                process.stop(max(0.0, end - time.monotonic()))
            self._started.clear()
