"""A thread that turns one queue and nothing else.

Owns the thread and the eventfd that ends it. It must not know peers or routes. It is what every queue runs on with
`--workers`, what the only queue runs on where the kernel grants its thread a raised priority, and what the loop lends
its queue to while it has long work of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from udpbackend.dataplane.native import Dataplane, ended
from udpbackend.dataplane.priority import raise_own


class Worker:
    """`start`, then `stop`; in between the queue is this thread's alone."""

    def __init__(
        self,
        dataplane: Dataplane,
        queue: int,
        on_end: Callable[[str], None],
        *,
        nice: int = 0,
        cpu: int | None = None,
    ) -> None:
        """`on_end` is called on the event loop with the reason when the queue can be turned no more.

        `nice`: the thread's nice value, if the kernel grants it; `cpu`: the core it is bound to.
        """
        self._dataplane = dataplane
        self._queue = queue
        self._on_end = on_end
        self._nice = nice
        self._cpu = cpu
        self._stop_fd = -1
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to turn the queue, which is open."""
        self._loop = asyncio.get_running_loop()
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=f"udpb-{self._queue}")
        self._thread.start()

    async def stop(self) -> None:
        """Ends it; the queue may be closed or turned by somebody else afterwards."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        os.eventfd_write(self._stop_fd, 1)
        await asyncio.to_thread(thread.join)
        os.close(self._stop_fd)

    def _run(self) -> None:
        with suppress(OSError):  # `top -H` shows it; Python before 3.14 does not tell the kernel a thread's name
            Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(threading.current_thread().name)
        if self._cpu is not None:
            with suppress(OSError):  # a core that was taken from us since the start: any other serves
                os.sched_setaffinity(threading.get_native_id(), {self._cpu})
        raise_own(self._nice)
        # Signals are the main thread's: here they would only interrupt system calls.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        why = ended(self._dataplane.run(self._queue, self._stop_fd))
        if why is not None:
            self._loop.call_soon_threadsafe(self._on_end, why)
