"""The HTTP servers: everything on a unix socket for this host's operator, health and metrics on flannel's TCP port.

Theory of operation: the unix socket is root's (mode 0600) and is there as long as the daemon; the TCP port is
--healthz-port, off by default, and has no status document but for the page of --ui. /healthz says that the loop turns
and asks for nothing else; /readyz asks whether packets flow. A handler that fails or is too slow answers 500 or 504,
and that is all.

Must not know what the facts mean. Starts nothing but its own two listeners.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from itertools import count, islice
from pathlib import Path

import msgspec
from aiohttp import web

from udpbackend.errors import HostError
from udpbackend.observe.build import build
from udpbackend.observe.facts import Facts, Source
from udpbackend.observe.metrics import CONTENT_TYPE, Metrics
from udpbackend.observe.page import Page
from udpbackend.observe.peers import every
from udpbackend.observe.report import Peer

DEADLINE_S = 5.0
"""For one answer, and for a start."""
STOP_S = 1.0
"""What a request under way gets when the daemon stops; aiohttp takes it twice at most."""
REQUEST_BYTES = 16384
"""What a request may bring; only that for a handover brings anything."""
IDLE_S = 30.0
"""How long a connection may wait for its next request."""
PIECE = 1000
"""Peers that are written at once: some 300 KB."""
NO_PEERS_LISTED = b'"peers":[]'
"""Where they stand in a document without them; no text of it can look so, because its quotes would be escaped."""
MOST_DIGITS = 20
LARGE = 50
"""From so many peers on (some 2 ms), writing a document would hold up the loop too long: a thread does it."""


class Server:
    """Both listeners. `stop` may be called whatever `start` came to."""

    def __init__(  # noqa: PLR0913  each is one of the operator's choices
        self,
        source: Source,
        metrics: Metrics,
        *,
        socket_path: Path,
        healthz_ip: IPv4Address | IPv6Address,
        healthz_port: int,
        ui: bool = False,
    ) -> None:
        self._source = source
        self._metrics = metrics
        self._handover: Callable[[bytes], Awaitable[tuple[int, str]]] | None = None
        self._path = socket_path
        self._address = (str(healthz_ip), healthz_port)
        self._page = Page() if ui else None
        self._runners: list[web.AppRunner] = []
        self._inode: int | None = None

    def answer_handover(self, asked: Callable[[bytes], Awaitable[tuple[int, str]]]) -> None:
        """`asked` answers POST /handover, which a successor sends over the unix socket: a status and a line of text."""
        self._handover = asked

    async def start(self) -> None:
        """Listens; a HostError names the socket or the port that is taken."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._listen_unix()
                if self._address[1]:
                    await self._listen_tcp()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stops listening, gives requests under way a moment, and removes the socket file if it is still ours."""
        with suppress(FileNotFoundError):  # the number is not given away while our socket is open
            if self._inode is not None and self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._inode = None
        while self._runners:
            with suppress(TimeoutError):
                async with asyncio.timeout(3 * STOP_S):
                    await self._runners.pop().cleanup()

    async def _listen_unix(self) -> None:
        runner = await self._runner(web.get("/status", self._status), web.post("/handover", self._hand_over))
        bound = bind(self._path)
        self._inode = self._path.stat().st_ino
        await _BoundSite(runner, bound).start()

    async def _listen_tcp(self) -> None:
        shown = [web.get("/", self._ui), web.get("/status", self._status)] if self._page else []
        runner = await self._runner(*shown)
        host, port = self._address
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise HostError(f"cannot listen on {host} port {port} (--healthz-ip, --healthz-port): {why}") from error

    async def _runner(self, *more: web.RouteDef) -> web.AppRunner:
        app = web.Application(client_max_size=REQUEST_BYTES)
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics_text),
                *more,
            ]
        )
        runner = web.AppRunner(
            app, handle_signals=False, access_log=None, shutdown_timeout=STOP_S, keepalive_timeout=IDLE_S
        )
        await runner.setup()
        self._runners.append(runner)
        return runner

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="udp-backend is running\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        waiting_for = self._source.waiting_for()
        if waiting_for is not None:
            return web.Response(status=503, text=f"udp-backend is not ready yet: waiting for {waiting_for}\n")
        seconds = self._source.view_age_s()
        view = "" if seconds is None else f", registry view {seconds:.0f} s old"
        return web.Response(text=f"udp-backend is ready{view}\n")

    async def _hand_over(self, request: web.Request) -> web.Response:
        if self._handover is None:
            return web.Response(status=404)
        status, text = await self._handover(await request.read())
        return web.Response(status=status, text=f"{text}\n")

    async def _status(self, request: web.Request) -> web.StreamResponse:
        """`?peers=N`: with at most N peers, see peers.some."""
        text = request.query.get("peers", str(sys.maxsize))
        if not (text.isascii() and text.isdigit() and len(text) < MOST_DIGITS):
            raise web.HTTPBadRequest(text=f"peers={text!r}: expected a whole number\n")
        most = int(text)
        async with asyncio.timeout(DEADLINE_S):
            facts = await self._source.facts()
            if min(most, _size(facts)) < PIECE:
                body = await self._written(facts, lambda it: msgspec.json.encode(build(it, peers_max=most)))
                return web.Response(body=body, content_type="application/json")
        async with self._source.undisturbed():
            return await self._piecewise(request, facts)

    async def _piecewise(self, request: web.Request, facts: Facts) -> web.StreamResponse:
        """The whole document, of which no more is in memory than a piece."""
        before, peers, after = (await asyncio.to_thread(_without_peers, facts)).partition(NO_PEERS_LISTED)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(before + peers[:-1])
        rest = every(facts)
        for number in count():
            piece = await asyncio.to_thread(_piece, rest)
            if not piece:
                break
            async with asyncio.timeout(DEADLINE_S):
                await response.write(b"," * bool(number) + piece)
        await response.write(peers[-1:] + after)
        await response.write_eof()
        return response

    async def _ui(self, _: web.Request) -> web.Response:
        assert self._page is not None  # noqa: S101 the route is there only then
        return web.Response(body=self._page.body, headers=self._page.headers, content_type="text/html", charset="utf-8")

    async def _metrics_text(self, _: web.Request) -> web.Response:
        async with asyncio.timeout(DEADLINE_S):
            body = await self._written(await self._source.facts(), self._metrics.render)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _written(self, facts: Facts, write: Callable[[Facts], bytes]) -> bytes:
        return write(facts) if _size(facts) < LARGE else await asyncio.to_thread(write, facts)


def _size(facts: Facts) -> int:
    return max(len(facts.peers), len(facts.nodes.leases))


def _without_peers(facts: Facts) -> bytes:
    return msgspec.json.encode(build(facts, peers_max=0))


def _piece(peers: Iterator[Peer]) -> bytes:
    """The next peers as the inside of a list; empty at the end."""
    return msgspec.json.encode(list(islice(peers, PIECE)))[1:-1]


class _BoundSite(web.BaseSite):
    """A listener on a unix socket that is bound already, with the mode it shall have."""

    def __init__(self, runner: web.AppRunner, bound: socket.socket) -> None:
        super().__init__(runner)
        self._bound = bound

    @property
    def name(self) -> str:
        return f"http://unix:{self._bound.getsockname()}:"

    async def start(self) -> None:
        await super().start()
        protocol = self._runner.server
        assert protocol is not None  # noqa: S101  # set up by Server._runner; the base class has checked it
        self._server = await asyncio.get_running_loop().create_unix_server(protocol, sock=self._bound)


def bind(path: Path) -> socket.socket:
    """A unix socket at `path`, mode 0600, not yet listening. What a dead daemon left there is removed."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _clear(path)
        bound.bind(str(path))
        path.chmod(0o600)  # nobody can connect before it listens
    except OSError as error:
        bound.close()
        why = error.strerror or str(error)  # a path that is too long has no errno
        raise HostError(f"cannot make the status socket {path}: {why}") from error
    except HostError:
        bound.close()
        raise
    return bound


def _clear(path: Path) -> None:
    """Removes a socket file on which nobody listens."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise HostError(f"cannot make the status socket {path}: a file that is no socket is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:  # it listens and its queue is full
            pass
    raise HostError(f"another udp-backend answers on {path}: stop it, or give this one its own --subnet-file")
