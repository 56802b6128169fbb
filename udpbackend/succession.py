"""A running daemon's side of a handover: it is asked, stops turning its queues, stands by, and leaves or goes on.

Owns the conversation with one successor at a time and the decision who moves packets (the words are those of
dataplane.handover, where the theory stands too). Must not know how a backend moves packets, nor how a run is ended: it
sets `leaving`, and the daemon ends the run.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import msgspec

from udpbackend import __version__
from udpbackend.backends.backend import HandsOver
from udpbackend.dataplane import estate, handover
from udpbackend.dataplane.estate import FORMAT, State
from udpbackend.dataplane.handover import ANSWER_S, Message, Request
from udpbackend.errors import HostError, UdpBackendError
from udpbackend.running import Running
from udpbackend.settings import Settings

log = logging.getLogger(__name__)

Step = Callable[[], Awaitable[None]]


class Succession:
    """At most one successor for one run; `asked` is called by the status socket, `linger` once the run has ended."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._run: Running | None = None
        self._unlisten: Step | None = None
        self._listen: Step | None = None
        self._connection: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._exit = False
        self._deaf = False
        """Whether the status socket is closed for the successor's sake."""
        self.handed_over = False
        """Whether another process moves the packets: what is on the host is then its own."""
        self.leaving = asyncio.Event()
        """The successor carries on, or waits for us to stop: this run is to end."""

    def watch(self, run: Running, *, listen: Step, unlisten: Step) -> None:
        """What there is to hand over; the two steps open and close the status socket and the health port."""
        self._run, self._listen, self._unlisten = run, listen, unlisten

    async def asked(self, body: bytes) -> tuple[int, str]:
        """Answers POST /handover: an HTTP status and a line; the conversation follows on a socket of its own."""
        try:
            request = msgspec.json.decode(body, type=Request)
            address = b"\0" + bytes.fromhex(request.address)
        except (msgspec.DecodeError, ValueError) as error:
            return 400, f"it does not understand the request: {error}"
        starting = self._starting
        if starting and (self._moves or not request.replace):
            return 409, starting
        if self._task is not None and not self._task.done():
            return 409, "it is handing over to another one already"
        difference = self._difference(request)
        if difference and not request.replace:
            return 409, difference
        why = starting or difference or _foreign(request)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            connection.connect(address)
            if handover.peer(connection) not in (0, os.geteuid()):
                raise PermissionError(errno.EPERM, "another user listens there")
        except OSError as error:
            connection.close()
            return 400, f"it cannot reach the socket of its successor: {error.strerror}"
        self._connection = connection
        self._task = asyncio.create_task(self._talk(connection, request, why), name="handover")
        return 200, "it does"

    async def close(self) -> None:
        """Ends a conversation under way, because this daemon is to stop: the successor goes on without us."""
        if self._task is not None and not self.leaving.is_set():
            self._task.cancel()
            await asyncio.wait((self._task,))

    @property
    def lets_go(self) -> bool:
        """Whether a run that has ended for a successor leaves to it nothing that our service manager keeps.

        A successor by `reload` has the same manager, and stores what it has taken over.
        """
        return self.leaving.is_set() and not self._exit

    async def linger(self, stopped: asyncio.Task[bool]) -> bool:
        """After a run that has ended for a successor: waits for its end or for ours; whether to start again."""
        connection, self._connection = self._connection, None
        if connection is None or not self.leaving.is_set():
            return False
        with connection:
            with suppress(OSError):
                handover.send(connection, Message(say="left"))
            if self._exit or stopped.done():
                return False
            log.info(
                "packets are another udp-backend's now; this one waits to be stopped, and starts again if that ends"
            )
            listening = asyncio.create_task(_end_of(connection))
            await asyncio.wait((listening, stopped), return_when=asyncio.FIRST_COMPLETED)
            listening.cancel()
            await asyncio.wait((listening,))
        if not listening.cancelled() and listening.result():
            return False
        if not stopped.done():
            log.warning("the udp-backend that went on with the packets has ended: starting again")
        return not stopped.done()

    @property
    def _starting(self) -> str:
        return "it is still starting" if self._run is None or self._run.waits_for is not None else ""

    @property
    def _moves(self) -> bool:
        """Whether packets move, if only by what another run has left: a successor might wait and move none."""
        return self._run is not None and self._run.backend is not None

    def _difference(self, request: Request) -> str:
        """What the successor would do otherwise than this daemon; empty where nothing."""
        ours = self._settings.identity()
        for name in sorted(ours.keys() | request.settings.keys()):
            here, there = ours.get(name), request.settings.get(name)
            if here != there:
                flag = f"--{name.replace('_', '-')}"
                return f"it has {flag} {here or 'at its default'}, this one {there or 'at its default'}"
        return ""

    async def _talk(self, connection: socket.socket, request: Request, why: str) -> None:
        run = self._run
        backend = run.backend if run else None
        try:
            if why or not isinstance(backend, HandsOver):  # the kernel moves the packets of other backends anyway
                log.info("stopping for udp-backend %s%s", request.version, f": {why}" if why else "")
                handover.send(connection, Message(say="yield", why=why))
                self.handed_over = True
                self.leaving.set()
                return
            await self._hand_over(connection, backend, request)
        except (OSError, UdpBackendError, TimeoutError) as error:
            log.warning("the handover to udp-backend %s failed, going on: %s", request.version, error or "too late")
            with suppress(OSError):
                handover.send(connection, Message(say="no", why=str(error)))
            connection.close()
            self._connection = None
            await self._go_on(backend)

    async def _hand_over(self, connection: socket.socket, backend: HandsOver, request: Request) -> None:
        """Raises OSError, HostError or TimeoutError where the successor does not go on; nothing is lost then."""
        log.info("handing over to udp-backend %s", request.version)
        fds, known = await backend.offer()
        _tell(connection, "state", known, fds)
        next_fds = await _waiting(connection)
        try:
            self.handed_over = True  # from the first queue on
            counted = await backend.release(next_fds)
        finally:
            for fd in next_fds:
                os.close(fd)
        _tell(connection, "counted", counted)
        await _word(connection, "turning", ANSWER_S)
        log.info("udp-backend %s moves the packets; standing by until it has started", request.version)
        if self._unlisten is not None:
            self._deaf = True
            await self._unlisten()
        handover.send(connection, Message(say="served"))
        self._exit = (await _word(connection, "leave", None)).exit
        self.leaving.set()

    async def _go_on(self, backend: object) -> None:
        self.handed_over = False
        if isinstance(backend, HandsOver):
            await backend.resume()
        if self._listen is not None and self._deaf:
            self._deaf = False
            try:
                await self._listen()
            except HostError as error:  # packets move; only who asks is not answered
                log.warning("%s", error)


def _foreign(request: Request) -> str:
    """Why another version cannot go on with our queues; empty where it can."""
    if request.format == FORMAT:
        return ""
    return f"version {__version__} does not understand the handover of version {request.version}"


def _tell(connection: socket.socket, word: str, state: State, fds: Mapping[str, int] | None = None) -> None:
    """Says a word with a state beside its fds."""
    written = estate.memfd()
    try:
        estate.write(written, state)
        handover.send(connection, Message(say=word), {**(fds or {}), "state": written})
    finally:
        os.close(written)


async def _waiting(connection: socket.socket) -> list[int]:
    """The eventfds, transferred, that the successor's threads wait for, in the order of their queues."""
    _, fds = await _heard(connection, "prepared", ANSWER_S)
    return [fds[name] for name in sorted(fds, key=lambda name: int(name.rpartition("-")[2]))]


async def _word(connection: socket.socket, expected: str, seconds: float | None) -> Message:
    """The successor's next word, which must be this one."""
    message, fds = await _heard(connection, expected, seconds)
    for fd in fds.values():
        os.close(fd)
    return message


async def _heard(connection: socket.socket, expected: str, seconds: float | None) -> tuple[Message, dict[str, int]]:
    """The same with the fds that come with it, transferred."""
    async with asyncio.timeout(seconds):
        await _readable(connection)
    heard = handover.receive(connection)
    if heard is None:
        raise HostError("it has ended")
    message, fds = heard
    if message.say != expected:
        for fd in fds.values():
            os.close(fd)
        raise HostError(message.why or f"it says {message.say!r}, expected {expected!r}")
    return message, fds


async def _end_of(connection: socket.socket) -> bool:
    """Returns when the other side has closed the connection, or has told us to end: whether it has done that."""
    while True:
        await _readable(connection)
        try:
            heard = handover.receive(connection)
        except (OSError, HostError):
            return False
        if heard is None or heard[0].exit:
            return heard is not None


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection.fileno())
