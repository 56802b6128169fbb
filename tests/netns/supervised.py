"""A daemon under a service manager that keeps its fds, or that does not.

Owns the supervisor's process and the files it tells by. The supervisor itself is bench.lab.supervisor.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bench.lab.daemon import READY_S, Overlay, program
from bench.lab.process import Process
from bench.lab.topology import Host
from bench.lab.wait import LabError, until
from udpbackend.dataplane.fdstore import PROBE

ENOUGH = 64
"""Room for all fds of the daemons that are tested."""


class Supervised:
    """The daemon of one host of an overlay; to the overlay the supervisor is its process."""

    def __init__(self, overlay: Overlay, host: Host, *arguments: str, fds: int = ENOUGH) -> None:
        self._overlay, self._host = overlay, host
        self.directory = Path(overlay.run_directory(host)) / "manager"
        self.directory.mkdir(parents=True, exist_ok=True)
        wrapper = (sys.executable, "-m", "bench.lab.supervisor", "--fds", str(fds), str(self.directory))
        self._keeps = fds >= ENOUGH
        self.process: Process = overlay.launch(host, *arguments, under=wrapper)
        self._await_kept()

    @property
    def pid(self) -> int:
        """Of the daemon that runs now."""
        return int((self.directory / "pid").read_text())

    @property
    def starts(self) -> int:
        """How many daemons there were."""
        return int((self.directory / "starts").read_text())

    @property
    def stored(self) -> list[str]:
        """The names of the fds that are kept."""
        path = self.directory / "stored"
        return path.read_text().split() if path.exists() else []

    @property
    def stored_at_ns(self) -> int:
        """When that changed last."""
        return (self.directory / "stored").stat().st_mtime_ns

    def kill(self) -> None:
        """SIGKILL, and waits until the next one is ready."""
        self._replaced(lambda: os.kill(self.pid, signal.SIGKILL))

    def restart(self) -> None:
        """A stop and a start, as `systemctl restart` does it."""
        self._replaced(lambda: self.process.send(signal.SIGUSR1))

    def reload(self) -> None:
        """The command `reload`, run by the manager; waits until the new daemon is the main process, and kept."""
        self._replaced(lambda: self.process.send(signal.SIGHUP))

    def reload_in_vain(self, *arguments: str) -> str:
        """Runs the command `reload` with the daemon's flags and more, which must fail; what it wrote."""
        argv = self.process.argv
        flags = argv[argv.index(program()) + 1 :]
        try:
            self._host.namespace.run(program(), "reload", *flags, *arguments)
        except LabError as error:
            return str(error)
        raise LabError(f"reload {arguments} has worked")

    def _replaced(self, act: Callable[[], None]) -> None:
        before = self.pid
        act()
        until(lambda: self.pid != before, READY_S, "no other daemon was started")
        self._await_kept()

    def _await_kept(self) -> None:
        self._overlay.await_ready(self._host)
        if self._keeps:
            until(self._kept, READY_S, "the fds are not kept")

    def _kept(self) -> bool:
        kept_by = self._overlay.status(self._host)["restart"]["kept_by"]
        return bool(kept_by == "service manager" and PROBE not in self.stored)
