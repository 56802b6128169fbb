"""One watch on one connection, as a stream of batches.

Owns the two-way gRPC call: what is asked on it, and what its answers mean. Does not know where to go when it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from aetcd import rpc

from udpbackend.subnets.etcd.session import AwayError, Session
from udpbackend.subnets.etcd.values import Batch, CompactedError, Event, after, key_value

PROGRESS_S = 10.0
"""etcd is asked so often to say something even if there is nothing to tell."""


async def batches(session: Session, prefix: bytes, revision: int) -> AsyncGenerator[Batch, None]:
    """See Client.watch. Raises AwayError, RefusedError, CompactedError."""
    # A watch looks at the login only when it begins, and would call a stale one a lack of permission.
    await session.log_in()
    call = session.watch.Watch(metadata=session.metadata)
    create = rpc.WatchCreateRequest(key=prefix, range_end=after(prefix), start_revision=revision, progress_notify=True)
    asking = asyncio.create_task(_keep_asking(call))
    try:
        try:
            async with asyncio.timeout(session.request_s):
                first = await _begin(session, call, create)
        except TimeoutError:
            raise AwayError(f"etcd {session.url}: no watch within {session.request_s:g} s") from None
        yield first
        while True:
            yield await _next(session, call)
    finally:
        asking.cancel()
        call.cancel()


async def _begin(session: Session, call: Any, create: Any) -> Batch:
    with session.translated():
        await call.write(rpc.WatchRequest(create_request=create))
    return await _next(session, call)


async def _next(session: Session, call: Any) -> Batch:
    with session.translated():
        answer = session.received(await call.read())
    if answer.compact_revision:
        raise CompactedError(
            f"etcd {session.url}: revision {answer.compact_revision} is the oldest it still knows",
            answer.compact_revision,
        )
    if answer.canceled:
        raise AwayError(f"etcd {session.url}: it has ended the watch: {answer.cancel_reason or 'for no reason'}")
    return Batch(answer.header.revision, answer.header.cluster_id, tuple(_event(it) for it in answer.events))


def _event(event: Any) -> Event:
    return Event("PUT" if event.type == event.PUT else "DELETE", key_value(event.kv))


async def _keep_asking(call: Any) -> None:
    with suppress(Exception):  # whatever ends the call shows where it is read
        while True:
            await asyncio.sleep(PROGRESS_S)
            await call.write(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))
