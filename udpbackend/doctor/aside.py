"""Work that may hang, done beside the event loop by a thread that nobody has to wait for.

A file on a dead file system holds up who opens it for ever, and asyncio's own threads are waited for at the end of the
program. These are not. Knows nothing of the work.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def aside(work: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """Decorates a function that blocks: it then runs in a thread of its own, and its caller may stop waiting for it."""

    @functools.wraps(work)
    async def waiting(*args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            error, result = None, None
            try:
                result = work(*args, **kwargs)
            except Exception as caught:  # noqa: BLE001 whatever it is, the caller gets it
                error = caught
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_settle, ended, result, error)

        threading.Thread(target=run, name=work.__name__, daemon=True).start()
        return await ended

    return waiting


def _settle(ended: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if ended.done():
        return  # nobody waits any longer
    if error is None:
        ended.set_result(result)
    else:
        ended.set_exception(error)
