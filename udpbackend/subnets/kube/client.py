"""The requests we make of the API server, each with a deadline, and its answers as values or one kind of error.

Owns HTTP: paths, parameters, pages, the stream of a watch. Retries nothing but an expired token, and knows no leases.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx2
import msgspec
from lightkube import ConfigError as LightkubeError

from udpbackend.gojson import UNREADABLE
from udpbackend.subnets.kube.access import Access
from udpbackend.subnets.kube.answers import GONE, ApiError, Event, Line, Page, Pod, StaleError, Status, retry_after_s
from udpbackend.subnets.kube.connection import Connection
from udpbackend.subnets.kube.node import Node

T = TypeVar("T")

PAGE_NODES = 100
"""A page of a list: 2 MB with nodes of a usual size, which the event loop has in hand for 6 ms, decoding included."""

STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}


class Ask(NamedTuple):
    """What we ask for, in the words of RBAC."""

    verb: str
    resource: str
    path: str


class Api:
    """One API server. Every method raises ApiError, in bounded time."""

    def __init__(self, access: Access, request_s: float) -> None:
        """`request_s`: how long one request may take. Opens nothing yet."""
        self.url = access.url
        self._request_s = request_s
        self._connection = Connection(access, request_s)

    async def close(self) -> None:
        """Ends all connections."""
        await self._connection.close()

    async def node(self, name: str) -> Node:
        """One node."""
        ask = Ask("get", "nodes", f"api/v1/nodes/{quote(name, safe='')}")
        return self._decoded(ask, await self._asked(ask), Node)

    async def node_of_pod(self, namespace: str, pod: str) -> str:
        """The name of the node that a pod runs on, empty before it has one."""
        ask = Ask("get", "pods", f"api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}")
        return self._decoded(ask, await self._asked(ask), Pod).spec.node_name

    async def patch_status(self, name: str, body: Mapping[str, Any]) -> Node:
        """Merges `body` into a node through its status, where a list like the conditions is merged by its key."""
        ask = Ask("patch", "nodes/status", f"api/v1/nodes/{quote(name, safe='')}/status")
        content = msgspec.json.encode(body)
        return self._decoded(ask, await self._asked(ask, method="PATCH", content=content, headers=STRATEGIC), Node)

    async def pages(self) -> AsyncGenerator[Page, None]:
        """All nodes as they were at one moment, that of the last page's resource_version."""
        ask = Ask("list", "nodes", "api/v1/nodes")
        params = {"limit": str(PAGE_NODES)}
        while True:
            page = self._decoded(ask, await self._asked(ask, params=params), Page)
            yield page
            if not page.metadata.continue_:
                return
            params["continue"] = page.metadata.continue_

    @asynccontextmanager
    async def watch(self, version: str, seconds: int) -> AsyncIterator[AsyncIterator[Event]]:
        """All changes of nodes after `version`, for so long; the context is entered when the watch stands.

        Raises StaleError where the server has forgotten `version`.
        """
        ask = Ask("watch", "nodes", "api/v1/nodes")
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        deadline = asyncio.get_running_loop().time() + seconds + self._request_s
        async with self._streamed(ask, params) as response:
            if response.status_code != httpx2.codes.OK:
                with self._explained(ask):
                    async with asyncio.timeout(self._request_s):
                        await response.aread()
                raise self._refused(ask, response)
            async with aclosing(self._events(ask, response, deadline)) as events:
                yield events

    @asynccontextmanager
    async def _streamed(self, ask: Ask, params: Mapping[str, str]) -> AsyncIterator[httpx2.Response]:
        """An answer whose body is still to come, for however long."""
        async with self._connection.client() as client:
            request = client.build_request(
                "GET",
                ask.path,
                params=params,
                headers={"Accept-Encoding": "identity"},  # compressed, an event could wait in the server for the next
                timeout=httpx2.Timeout(self._request_s, read=None),
            )
            with self._explained(ask):
                async with asyncio.timeout(self._request_s):
                    response = await client.send(request, stream=True)
            try:
                yield response
            finally:
                await response.aclose()

    async def _events(self, ask: Ask, response: httpx2.Response, deadline: float) -> AsyncGenerator[Event, None]:
        pending = b""
        chunks = response.aiter_bytes()
        while True:
            with self._explained(ask):
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(chunks, None)
            if chunk is None:
                break
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                yield self._event(ask, line)
        if pending:
            raise ApiError(f"the API server {self.url} has ended a watch in the middle of an event")

    def _event(self, ask: Ask, line: bytes) -> Event:
        found = self._decoded(ask, line, Line)
        if found.type == "ERROR":
            status = self._decoded(ask, found.object, Status)
            raise self._error(ask, status.code, status.message)
        return Event(found.type, self._decoded(ask, found.object, Node))

    async def _asked(self, ask: Ask, *, method: str = "GET", **request: Any) -> bytes:
        """The body of a good answer."""
        async with self._connection.client() as client:
            with self._explained(ask):
                async with asyncio.timeout(self._request_s):
                    response = await client.request(method, ask.path, **request)
        if response.status_code != httpx2.codes.OK:
            raise self._refused(ask, response)
        return response.content

    def _refused(self, ask: Ask, response: httpx2.Response) -> ApiError:
        if response.status_code == httpx2.codes.UNAUTHORIZED:
            self._connection.doubt()
        try:
            message = msgspec.json.decode(response.content, type=Status).message
        except UNREADABLE:
            message = response.reason_phrase
        error = self._error(ask, response.status_code, message)
        error.retry_after_s = retry_after_s(error.code, response.headers.get("Retry-After", ""))
        return error

    def _error(self, ask: Ask, code: int, message: str) -> ApiError:
        if code == httpx2.codes.FORBIDDEN:
            return ApiError(
                f"the API server {self.url} forbids to {ask.verb} {ask.resource}: {message} (expected a ClusterRole "
                f"with the verb {ask.verb} on {ask.resource}, bound to this account)",
                code,
            )
        kind = StaleError if code == GONE else ApiError
        return kind(f"the API server {self.url} refuses to {ask.verb} {ask.resource}: {code} {message}", code)

    def _decoded(self, ask: Ask, data: bytes | msgspec.Raw, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except UNREADABLE as error:
            raise ApiError(
                f"the API server {self.url} gives a strange answer to {ask.verb} {ask.resource}: {error}"
            ) from None

    @contextmanager
    def _explained(self, ask: Ask) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, httpx2.TimeoutException):
            raise ApiError(f"the API server {self.url} is silent: no answer to {ask.verb} {ask.resource}") from None
        except LightkubeError as error:
            raise ApiError(f"no way into the API server {self.url}: {error}") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, KeyError) as error:
            self._connection.doubt()  # a server may refuse a certificate so, and we its
            raise ApiError(f"no contact with the API server {self.url}: {_cause(error)}") from None


def _cause(error: BaseException) -> str:
    """What lies at the bottom of an error that others have wrapped."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
