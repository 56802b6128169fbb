"""The uvloop side of the pump: when a queue has work, one call into C.

Owns a queue's registration with the event loop. It must not know peers or routes. Only the queue's own epoll fd is
handed to the loop, never the TUN or the socket: uvloop drops an fd for good at its first EPOLLERR.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from udpbackend.dataplane.native import Dataplane, ended

BUDGET_NS = 2_000_000
"""How long one turn may keep the event loop."""
LINGER_NS = 100_000
"""How long a turn waits for the next packet before it goes back to the event loop."""


class Pump:
    """Turns one queue whenever it has work, until `stop`."""

    def __init__(self, dataplane: Dataplane, queue: int, on_end: Callable[[str], None]) -> None:
        """`on_end` is called once with the reason when the queue can be turned no more."""
        self._dataplane = dataplane
        self._queue = queue
        self._on_end = on_end
        self._fd = -1
        self._loop_fd = -1

    def start(self) -> None:
        """Begins to turn the queue, which is open."""
        loop = asyncio.get_running_loop()
        # The loop's own epoll fd tells the linger that somebody else needs the loop. Only uvloop has one to give.
        backend = getattr(loop, "_get_backend_id", None)
        self._loop_fd = backend() if backend else -1
        self._fd = self._dataplane.queue_fd(self._queue)
        loop.add_reader(self._fd, self._turn)

    async def stop(self) -> None:
        """Ends it; the queue may be closed afterwards."""
        if self._fd < 0:
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        self._fd = -1
        # uvloop takes the fd out of its epoll set at its next iteration, and it must not be closed before.
        for _ in range(2):
            await asyncio.sleep(0)

    def _turn(self) -> None:
        why = ended(self._dataplane.turn(self._queue, BUDGET_NS, LINGER_NS, self._loop_fd))
        if why is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._on_end(why)
