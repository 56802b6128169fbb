"""One connection to one endpoint of etcd: how it is opened, who we are on it, and what its errors mean.

Owns the gRPC channel and the login. Knows neither requests nor the other endpoints. A channel connects when it is first
used, so opening one neither waits nor fails.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import grpc
from aetcd import rpc
from grpc import StatusCode

from udpbackend.errors import RegistryError
from udpbackend.subnets.etcd.access import Access, EtcdUrl

T = TypeVar("T")

OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # http_proxy is meant for the web; flanneld does not use it for etcd either
    ("grpc.service_config_disable_resolution", 1),  # no TXT records: etcd has none
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection, without another one's back-off
    ("grpc.max_receive_message_length", -1),  # a watch that has fallen behind gets all it missed at once
    # A silent connection is given up after 20 s. More often than every 5 s etcd would call abuse; it is asked only
    # while a call is open, which is to say during a watch.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),  # for the kernel: unacknowledged data (TCP_USER_TIMEOUT)
    ("grpc.http2.ping_timeout_ms", 10_000),  # for a process that does not answer; a minute without this
    ("grpc.http2.max_pings_without_data", 0),  # as often as is needed
)

REFUSALS = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.NOT_FOUND,
        StatusCode.ALREADY_EXISTS,
        StatusCode.PERMISSION_DENIED,
        StatusCode.UNAUTHENTICATED,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.OUT_OF_RANGE,
        StatusCode.DATA_LOSS,
    }
)
"""An answer of etcd's that every member would give; all else may go better elsewhere.

RESOURCE_EXHAUSTED is not one: "too many requests" is said by a member that is itself behind with applying. A full
database is told with it, too, and to ask every member about that does no harm.
"""

REQUIRE_LEADER = ("hasleader", "true")
"""Metadata: a member that knows of no leader says so at once, and ends watches, instead of keeping us waiting."""

STALE_LOGIN = ("invalid auth token", "revision of auth store is old", "user name is empty")
"""The last where etcd has begun to ask for a login since."""

HINTS = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate cannot be verified with --etcd-cafile or, without it, this host's",
    "Hostname Verification": "its certificate is for other names",
    "TSI_DATA_CORRUPTED": "perhaps it wants a client certificate, or another one: --etcd-certfile, --etcd-keyfile",
    "Handshake read failed": "perhaps it speaks http, not https",
    "Socket closed": "perhaps it speaks https, not http",
}
"""What words of gRPC's may mean to an operator at an endpoint that has never answered."""


class RefusedError(RegistryError):
    """etcd has answered, with a refusal."""

    def __init__(self, message: str, code: StatusCode) -> None:
        super().__init__(message)
        self.code = code


class AwayError(RegistryError):
    """An endpoint cannot serve us now; another one may."""


class Session:
    """One channel and the login on it; ours to close."""

    def __init__(self, url: EtcdUrl, access: Access, request_s: float) -> None:
        """`request_s` bounds the login. Raises HostError if a certificate file cannot be read."""
        self.url = url
        self.users = 0
        self._answered = False
        self._access = access
        self.request_s = request_s
        self._token: str | None = None
        self._channel: Any = _channel(url, access)
        self.kv: Any = rpc.KVStub(self._channel)
        self.lease: Any = rpc.LeaseStub(self._channel)
        self.watch: Any = rpc.WatchStub(self._channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every request."""
        return (REQUIRE_LEADER, ("token", self._token)) if self._token else (REQUIRE_LEADER,)

    async def run(self, work: Callable[[Self], Awaitable[T]]) -> T:
        """Awaits `work`, logged in; once more when etcd has forgotten the login. Raises AwayError, RefusedError."""
        with self.translated():
            if self._token is None:
                await self.log_in()
            try:
                result = await work(self)
            except grpc.aio.AioRpcError as error:
                if not any(words in (error.details() or "") for words in STALE_LOGIN):
                    raise
                await self.log_in()
                result = await work(self)
            self._answered = True
            return result

    async def log_in(self) -> None:
        """Exchanges name and password for a new token; does nothing without a name. Raises AwayError, RefusedError."""
        if self._access.username is None:
            self._token = ""
            return
        self._token = None  # until etcd has given one, or none is needed: a login that it refuses is tried again
        request = rpc.AuthenticateRequest(name=self._access.username, password=self._access.password or "")
        with self.translated():
            try:
                answer = await rpc.AuthStub(self._channel).Authenticate(request, timeout=self.request_s)
            except grpc.aio.AioRpcError as error:
                if "authentication is not enabled" not in (error.details() or ""):  # then anybody may do anything
                    raise
                self._token = ""
            else:
                self._token = answer.token

    def received(self, answer: Any) -> Any:
        """What a stream has read, if it has not come to its end. Raises AwayError."""
        if answer is grpc.aio.EOF:
            raise AwayError(f"etcd {self.url}: it has ended the stream")
        return answer

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Errors of gRPC inside become ours, with the endpoint and the cause."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            text = f"etcd {self.url}: {self._cause(error)}"
            if error.code() in REFUSALS:
                raise RefusedError(text, error.code()) from None
            raise AwayError(text) from None
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:  # on a channel that has just been closed
            raise AwayError(f"etcd {self.url}: {error}") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise AwayError(f"etcd {self.url}: the connection was closed") from None

    async def close(self) -> None:
        """Ends all that is under way."""
        await self._channel.close()

    def _cause(self, error: Any) -> str:
        if error.code() is StatusCode.DEADLINE_EXCEEDED:
            return f"no answer within {self.request_s:g} s"
        text = str(error.details() or error.code().name).rpartition("last error: ")[2]
        text = re.sub("^[A-Z]+: ", "", text).removeprefix("etcdserver: ")
        text = text.replace("Internal error from Core", "the connection broke")
        hint = next((hint for words, hint in HINTS.items() if words in text and not self._answered), None)
        return f"{hint} ({text})" if hint else text


def _channel(url: EtcdUrl, access: Access) -> Any:
    target = f"dns:///{url.target}"
    if not url.tls:
        return grpc.aio.insecure_channel(target, options=OPTIONS)
    credentials = grpc.ssl_channel_credentials(*access.read())
    return grpc.aio.secure_channel(target, credentials, options=OPTIONS)
