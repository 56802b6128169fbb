"""The turn of one daemon among several of this network namespace that change what they share.

Owns the lock, which lies on the namespace itself: so it needs no file, holds between containers that share the host's
network, and nothing of it stays when its holder dies. Must not know what is changed.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

NAMESPACE = "/proc/thread-self/ns/net"
LONGEST_S = 5.0
"""Any program may take this lock, and must not keep us from our work for good by it."""
PAUSE_S = 0.02


@contextmanager
def turn(longest_s: float = LONGEST_S) -> Iterator[None]:
    """Ours alone while it lasts, or after so long without the lock. Blocks; for threads."""
    try:
        fd = os.open(NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        end = time.monotonic() + longest_s
        while not _locked(fd) and time.monotonic() < end:
            time.sleep(PAUSE_S)
        yield
    finally:
        os.close(fd)


@asynccontextmanager
async def turn_in_loop() -> AsyncIterator[None]:
    """The same for coroutines. Within it no `turn` of this process can begin but by waiting LONGEST_S."""
    with ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, turn())
        yield


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a kernel that has no such lock: then there is no turn to wait for
    return True
