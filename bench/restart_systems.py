"""The systems whose restarts are measured: each can be upgraded, killed, or stopped and started, on the first host.

Owns how that is done for each and when it counts as done. Must not know what is watched meanwhile.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import ClassVar, Self

from bench.lab.daemon import READY_S, Overlay
from bench.lab.process import Process
from bench.lab.topology import Lab
from bench.lab.traffic import Way
from bench.lab.wait import until
from bench.systems.flannel import FlannelUdp

NOTHING_S = 1.5


class Restarted:
    """Set up while the context lasts."""

    name: ClassVar[str] = "udp"
    what: ClassVar[str] = "udp-backend; a kill leaves flannel0 without a queue, and the next one starts at once"
    events: ClassVar[tuple[tuple[str, str], ...]] = (
        ("stream", "nothing"),
        ("stream", "upgrade"),
        ("connections", "upgrade"),
        ("connections", "kill"),
        ("stream", "restart"),
        ("connections", "restart"),
    )
    """What is watched, and what happens."""
    backend: ClassVar[dict[str, str] | None] = None

    def __init__(self, lab: Lab) -> None:
        self._overlay = Overlay(lab, backend=dict(self.backend) if self.backend else None)
        self._first, self._second = lab.hosts
        a, b = lab.hosts
        self.way = Way(a.pod, b.pod, b.pod_address, a.pod_address)

    @classmethod
    def missing(cls) -> str:
        """What it needs and this machine lacks; empty when it can run."""
        return ""

    def __enter__(self) -> Self:
        self._overlay.__enter__()
        self._overlay.start_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._overlay.__exit__(*exception)

    def nothing(self) -> None:
        """For as long as an upgrade takes: what the machine does to a stream by itself."""
        time.sleep(NOTHING_S)

    def upgrade(self) -> None:
        """A successor is started and takes over; the old one is told to stop when it is ready."""
        old = self._overlay.process(self._first)
        self._overlay.launch(self._first)
        text = "waits to be stopped"
        until(lambda: text in old.stderr.read_text(), READY_S, "no handover")
        self._overlay.await_ready(self._first)  # where the kernel moves packets, the old one leaves before
        self._truncate(old)
        old.stop()

    def kill(self) -> None:
        """SIGKILL, and at once a new one."""
        process = self._overlay.process(self._first)
        process.send(signal.SIGKILL)
        process.wait(READY_S)
        self._start()

    def restart(self) -> None:
        """SIGTERM, its end, a new one."""
        self._overlay.stop(self._first)
        self._start()

    def _start(self) -> None:
        self._overlay.launch(self._first)
        self._overlay.await_ready(self._first)

    @staticmethod
    def _truncate(process: Process) -> None:
        """All daemons of a host write to one file: what the last one said is not what the next one says."""
        process.stderr.write_text("")


class Kept(Restarted):
    """Under a manager with an fd store."""

    name = "udp, fds kept"
    what = "udp-backend under a service manager that keeps its fds, and starts it again at once"
    events = (("connections", "kill"), ("stream", "kill"), ("connections", "restart"))

    def __enter__(self) -> Self:
        self._overlay.__enter__()
        directory = self._overlay.run_directory(self._first) / "manager"
        directory.mkdir(parents=True)
        self._pid = directory / "pid"
        wrapper = (sys.executable, "-m", "bench.lab.supervisor", str(directory))
        self._overlay.launch(self._first, under=wrapper)
        self._overlay.launch(self._second)
        for host in (self._first, self._second):
            self._overlay.await_ready(host)
        return self

    def kill(self) -> None:
        """SIGKILL; the manager does the rest."""
        self._replaced(lambda pid: os.kill(pid, signal.SIGKILL))

    def restart(self) -> None:
        """As `systemctl restart`."""
        self._replaced(lambda _: self._overlay.process(self._first).send(signal.SIGUSR1))

    def _replaced(self, act: Callable[[int], None]) -> None:
        before = self._pid.read_text()
        act(int(before))
        until(lambda: self._pid.read_text() != before, READY_S, "the manager has started no other")
        self._overlay.await_ready(self._first)


class Kernel(Restarted):
    """Nothing of a restart is felt where the kernel moves the packets."""

    name = "vxlan"
    what = "kernel VXLAN, set up by udp-backend: what is restarted only looks after it"
    events = (("stream", "upgrade"), ("connections", "kill"), ("stream", "restart"))
    backend: ClassVar[dict[str, str] | None] = {"Type": "vxlan"}


class Flanneld(Restarted):
    """Real flanneld's udp backend; it has no upgrade but a restart."""

    name = "flannel-udp"
    what = FlannelUdp.what
    events = (("connections", "kill"), ("stream", "restart"), ("connections", "restart"))

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._flannel = FlannelUdp(lab)

    @classmethod
    def missing(cls) -> str:
        """As measured elsewhere."""
        return FlannelUdp.missing()

    def __enter__(self) -> Self:
        self._flannel.prepare()
        return self

    def __exit__(self, *_: object) -> None:
        self._flannel.teardown()

    def kill(self) -> None:
        """SIGKILL, and at once a new one."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """SIGTERM, its end, a new one."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process = self._flannel.running[self._first.name]
        process.send(number)
        process.wait(READY_S)
        self._flannel.start_again(self._first)


SYSTEMS: dict[str, type[Restarted]] = {it.name: it for it in (Restarted, Kept, Kernel, Flanneld)}
