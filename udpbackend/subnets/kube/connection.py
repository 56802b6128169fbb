"""The HTTP client for one API server, and another in its place when what lets us in has been renewed.

Owns the client's settings and its life. A kubelet or an administrator renews certificates where they are; they are read
again when contact is lost, not by the clock. Must not know what is asked.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from udpbackend import __version__
from udpbackend.errors import ConfigError
from udpbackend.subnets.kube.access import Access

log = logging.getLogger(__name__)

KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)
"""A watch may be silent for long, so it is TCP that finds out within 30 s that the other end is gone."""


class Connection:
    """The way to one API server; `url` stays the one it was made with."""

    def __init__(self, access: Access, request_s: float) -> None:
        """`request_s`: how long one request may take. Opens nothing yet."""
        self.url = access.url
        self._request_s = request_s
        self._access = access
        self._client = self._made(access)
        self._users: Counter[httpx2.AsyncClient] = Counter()
        self._doubted = False
        self._problem = ""

    def doubt(self) -> None:
        """To be told when the server did not let us in, or did not answer: renewed files may be the cure."""
        self._doubted = True

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        """The client of now, for one request; it is closed only when nobody uses it any more."""
        if self._doubted:
            await self._renew()
        client = self._client
        self._users[client] += 1
        try:
            yield client
        finally:
            self._users[client] -= 1
            await self._let_go(client)

    async def close(self) -> None:
        """Ends all connections."""
        await self._client.aclose()

    async def _renew(self) -> None:
        self._doubted = False
        try:
            access = await asyncio.to_thread(self._access.renewed)
        except ConfigError as error:  # perhaps half of them are renewed: the next failure asks again
            if str(error) != self._problem:
                log.warning("what lets us into the API server %s was changed and is no good: %s", self.url, error)
            self._problem = str(error)
            return
        if access is None:
            return
        log.info("what lets us into the API server %s was changed, and is used from now on", self.url)
        self._problem = ""
        self._access = access
        before, self._client = self._client, self._made(access)
        await self._let_go(before)

    async def _let_go(self, client: httpx2.AsyncClient) -> None:
        if client is not self._client and not self._users[client]:
            del self._users[client]
            await client.aclose()

    def _made(self, access: Access) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            base_url=self.url,
            auth=access.auth,
            transport=httpx2.AsyncHTTPTransport(verify=access.verify, socket_options=KEEPALIVE),
            timeout=self._request_s,
            headers={"User-Agent": f"udp-backend/{__version__}", "Accept": "application/json"},
        )
