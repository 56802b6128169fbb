"""A thread that turns one queue and nothing else.

Owns the thread and the eventfds that begin and end it. It must not know peers or routes. It is what every queue runs on
with `--workers`, what the only queue runs on where the kernel grants its thread a raised priority, what the loop lends
its queue to while it has long work of its own, and what turns inherited queues before there is a loop: so nothing of
asyncio is loaded here before it is there anyway.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from udpbackend.dataplane.native import Dataplane, ended
from udpbackend.dataplane.priority import raise_own
from udpbackend.errors import HostError

READY_S = 5.0
"""How long a thread may take until it needs nothing but `go`."""

OnLoop = Callable[[Callable[[], None]], object]
"""A loop's call_soon_threadsafe."""


class Worker:
    """`start`, then `stop` or `halt`; in between the queue is this thread's alone."""

    def __init__(self, dataplane: Dataplane, queue: int, *, nice: int = 0, cpu: int | None = None) -> None:
        """`nice`: the thread's nice value, if the kernel grants it; `cpu`: the core it is bound to."""
        self._dataplane = dataplane
        self._queue = queue
        self._nice = nice
        self._cpu = cpu
        self._stop_fd = self._go_fd = self._ready_fd = -1
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._why: str | None = None
        self._watched: tuple[OnLoop, Callable[[str], None]] | None = None

    def start(self, *, hold: bool = False) -> None:
        """Begins to turn the queue, which is open; with `hold` once `go_fd` is written."""
        if hold:
            self._go_fd, self._ready_fd = _eventfd(), _eventfd()
        self._stop_fd = _eventfd()
        self._thread = threading.Thread(target=self._run, name=f"udpb-{self._queue}")
        self._thread.start()

    @property
    def go_fd(self) -> int:
        """The eventfd that a held thread waits for; borrowed."""
        return self._go_fd

    def await_ready(self) -> None:
        """Waits until a held thread waits for that alone: it is beyond the interpreter, which others may keep busy."""
        poll = select.poll()
        poll.register(self._ready_fd, select.POLLIN)
        if not poll.poll(READY_S * 1000):
            raise HostError(f"a thread for packets is not ready within {READY_S:g} s")

    def go(self) -> None:
        """Lets a held thread turn, if nobody else has."""
        os.eventfd_write(self._go_fd, 1)

    def watch(self, on_loop: OnLoop, on_end: Callable[[str], None]) -> None:
        """`on_end` is called by `on_loop`, once, with the reason when the queue can be turned no more."""
        with self._lock:
            self._watched = on_loop, on_end
        self._tell()

    async def stop(self) -> None:
        """Ends it; the queue may be closed or turned by somebody else afterwards."""
        import asyncio  # noqa: PLC0415 who calls this has loaded it

        await asyncio.to_thread(self.halt)

    def halt(self) -> None:
        """The same without a loop: waits for the end of a batch."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        os.eventfd_write(self._stop_fd, 1)
        thread.join()
        for fd in (self._stop_fd, self._go_fd, self._ready_fd):
            if fd >= 0:
                os.close(fd)

    def _run(self) -> None:
        with suppress(OSError):  # `top -H` shows it; Python before 3.14 does not tell the kernel a thread's name
            Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(threading.current_thread().name)
        if self._cpu is not None:
            with suppress(OSError):  # a core that was taken from us since the start: any other serves
                os.sched_setaffinity(threading.get_native_id(), {self._cpu})
        raise_own(self._nice)
        # Signals are the main thread's: here they would only interrupt system calls.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if self._go_fd < 0:
            self._why = ended(self._dataplane.run(self._queue, self._stop_fd))
        else:
            self._why = ended(self._dataplane.run_when(self._queue, self._ready_fd, self._go_fd, self._stop_fd))
        self._tell()

    def _tell(self) -> None:
        """Once the queue has ended and somebody watches: whichever comes second finds both."""
        with self._lock:
            if self._why is None or self._watched is None:
                return
            (on_loop, on_end), self._watched = self._watched, None
            why = self._why
        on_loop(lambda: on_end(why))


def _eventfd() -> int:
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
