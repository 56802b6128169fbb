"""The one door to the kernel's routing tables and links: a thread with its own event loop.

Owns that thread, the netlink sockets in it, and the subscription to changes. pyroute2 does not run on uvloop, so
nothing else may use it outside `call`. Must not know what the requests mean: callers pass the work and name the error.

A socket is opened for every call (0.4 ms) instead of being kept: a kept one that once reported an error is dead for
good, and a call is rare. Changes come over a plain socket of ours whose messages are dropped unread, because "something
changed" is all that is asked, and decoding a full routing table's storm would cost a core.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from udpbackend.errors import HostError

T = TypeVar("T")

GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18 | 1 << 23 | 1 << 24
"""RTMGRP_LINK, IFADDR, ROUTE and RULE of RTMGRP_IPV4, IFADDR and ROUTE of RTMGRP_IPV6, then RTNLGRP_IPV6_RULE and
RTNLGRP_IPV4_NETCONF and IPV6_NETCONF, which tell of forwarding (linux/rtnetlink.h)."""

SETTLE_S = 0.05
"""After a change the socket is left alone this long, so that a storm costs twenty wake-ups a second and no more."""

ENDED = "the netlink thread has ended"

DRAIN_MESSAGES = 1024
"""Read at most in one go; what is left wakes us again after SETTLE_S."""


@contextmanager
def failing(to: str) -> Iterator[None]:
    """Errors of the kernel inside become a HostError "cannot <to>: <reason>"."""
    try:
        yield
    except NetlinkError as error:
        reason = os.strerror(error.code)
        detail = error.args[1] if len(error.args) > 1 else None
        if detail and detail != reason:
            reason = f"{reason} ({detail})"
        if error.code in (errno.EPERM, errno.EACCES):
            reason += "; the capability NET_ADMIN is needed"
        raise HostError(f"cannot {to}: {reason}") from error
    except OSError as error:
        raise HostError(f"cannot {to}: {error.strerror or error}") from error


class Netlink:
    """The netlink thread: `async with Netlink() as netlink`, in any event loop."""

    def __init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="netlink")
        self._watchers: list[asyncio.Event] = []
        self._stop = asyncio.Event()
        self._turn = asyncio.Lock()
        self._over = False

    async def __aenter__(self) -> Self:
        self._main = asyncio.get_running_loop()
        self._ended = self._main.create_future()
        started = self._started = self._main.create_future()
        self._loop = asyncio.SelectorEventLoop()  # here, so that the thread can be told to end before it has begun
        self._thread.start()
        try:
            await started
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def call(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Runs `work(ip)` in the thread with an AsyncIPRoute of its own and returns its result.

        Calls run one after the other, so what one reads no other call changes under it.
        """
        if self._over:
            raise HostError(ENDED)
        future = asyncio.run_coroutine_threadsafe(self._serve(work), self._loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise HostError(ENDED) from None

    def changes(self) -> asyncio.Event:
        """A new event, set in the caller's loop whenever a link, an address, a route, a rule or forwarding changes.

        The owner clears it, then looks. Changes that could not be told (the socket overflowed) count as changes.
        """
        event = asyncio.Event()
        self._watchers.append(event)
        return event

    async def _end(self) -> None:
        self._over = True  # no call comes after the stop in the thread's queue and waits there for ever
        with suppress(RuntimeError):  # it has ended by itself and closed its loop
            self._loop.call_soon_threadsafe(self._stop.set)
        await self._ended
        self._thread.join()  # it has left its loop: microseconds

    async def _serve(self, work: Callable[[Any], Awaitable[T]]) -> T:
        # Work names its own errors. What it has forgotten, or the socket itself, must not end a daemon unnamed.
        with failing("ask the kernel"):
            async with self._turn, AsyncIPRoute(strict_check=True, ext_ack=True) as ip:
                return await work(ip)

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._live())
        finally:
            with suppress(RuntimeError):  # a main loop that was cancelled out of waiting may be closed
                self._main.call_soon_threadsafe(_settle, self._ended, None)

    async def _live(self) -> None:
        try:
            with failing("watch links, addresses and routes"), _change_socket() as changes:
                self._listen(changes)
                self._main.call_soon_threadsafe(_settle, self._started, None)
                await self._stop.wait()
                self._loop.remove_reader(changes)
        except HostError as error:
            self._main.call_soon_threadsafe(_settle, self._started, error)

    def _listen(self, changes: socket.socket) -> None:
        if not self._stop.is_set():
            self._loop.add_reader(changes, self._changed, changes)

    def _changed(self, changes: socket.socket) -> None:
        self._loop.remove_reader(changes)
        _drain(changes)
        self._main.call_soon_threadsafe(self._tell)
        self._loop.call_later(SETTLE_S, self._listen, changes)

    def _tell(self) -> None:
        for event in self._watchers:
            event.set()


def _change_socket() -> socket.socket:
    changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        changes.bind((0, GROUPS))
    except OSError:
        changes.close()
        raise
    return changes


def _drain(changes: socket.socket) -> None:
    for _ in range(DRAIN_MESSAGES):
        try:
            changes.recv(1)  # the kernel drops the rest of the message
        except BlockingIOError:
            return
        except OSError:
            continue  # ENOBUFS: messages were lost, which is a change too


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
