"""etcd as the registry uses it: keys, leases and watches, on whichever endpoint answers.

Owns the choice of the endpoint. Knows nothing of what the keys mean. Requests share one connection; one that fails its
endpoint leaves it, and the connection is closed when its last user is done with it.

The generated half of aetcd is used without its own client, which knows one endpoint and no TLS and whose watch drops
the header of what it receives: without revision and cluster id a reset cannot be told from a change.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from aetcd import rpc
from grpc import StatusCode

from udpbackend.errors import HostError, RegistryError
from udpbackend.subnets.etcd.access import Access, EtcdUrl
from udpbackend.subnets.etcd.session import AwayError, RefusedError, Session
from udpbackend.subnets.etcd.stream import batches
from udpbackend.subnets.etcd.values import Batch, CompactedError, KeyValue, Outcome, Range, after, key_value

log = logging.getLogger(__name__)

T = TypeVar("T")

PAGE_KEYS = 1000
"""So many keys are decoded at a stretch, in about 2 ms; then the loop gets its turn."""


class Client:
    """One cluster. Every method raises RegistryError, which names the endpoint and the cause, in bounded time.

    A request that finds its endpoint away, without a leader or silent goes on to the next. So a change may have been
    made although its answer was lost: each of them may be made twice without harm.
    """

    def __init__(self, endpoints: Sequence[str], access: Access, *, request_s: float = 5.0) -> None:
        """`request_s`: how long one endpoint may take for one request, connecting included.

        Opens nothing yet. Raises UsageError for an endpoint, HostError for a certificate that is no good.
        """
        # A bare host:port is taken as etcd's own client does, which flanneld uses: TLS if there are certificates.
        tls = bool(access.cafile or access.certfile)
        self._urls = [EtcdUrl.parse(text, tls=tls) for text in endpoints]
        self._access = access
        self._request_s = request_s
        access.check()
        if (access.cafile or access.certfile or access.username) and not all(url.tls for url in self._urls):
            log.warning("etcd over http: certificates are of no use there, and a password is sent for all to read")
        # Each node begins elsewhere, or the first member would have all watches of a large network.
        self._index = random.randrange(len(self._urls))  # noqa: S311  (spreads load; no secret)
        self._session: Session | None = None
        self._closed = False

    @property
    def endpoint(self) -> str:
        """The endpoint in use, or to be tried next: for status and logs."""
        return str(self._session.url if self._session else self._urls[self._index])

    async def get(self, key: bytes) -> KeyValue | None:
        """One key as the cluster's majority has it; None if there is none."""
        answer = await self._request("kv", "Range", rpc.RangeRequest(key=key))
        return key_value(answer.kvs[0]) if answer.kvs else None

    async def get_prefix(self, prefix: bytes, revision: int = 0) -> Range:
        """All keys that begin with `prefix`, at one revision, 0 for now; fetched in pages. Raises CompactedError."""
        start, end, items = prefix, after(prefix), list[KeyValue]()
        while True:
            page = rpc.RangeRequest(key=start, range_end=end, limit=PAGE_KEYS, revision=revision)
            try:
                answer = await self._request("kv", "Range", page)
            except RefusedError as error:
                if error.code is StatusCode.OUT_OF_RANGE:
                    raise CompactedError(str(error), 0) from None
                raise
            items.extend(key_value(kv) for kv in answer.kvs)
            revision = revision or answer.header.revision
            if not answer.more:
                return Range(revision, answer.header.cluster_id, tuple(items))
            start = items[-1].key + b"\0"

    async def put_if(self, key: bytes, value: bytes, lease: int, mod_revision: int) -> Outcome:
        """Writes a key if its mod_revision is still that one; 0: if there is no such key.

        Also counts as success if it stands there as wanted already, which is how a second attempt finds the first one.
        """
        put = rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value, lease=lease))
        answer = await self._transaction(key, mod_revision, put)
        if answer.succeeded:
            return Outcome(succeeded=True, revision=answer.header.revision)
        found = next((key_value(kv) for kv in answer.responses[0].response_range.kvs), None)
        if found is not None and (found.value, found.lease) == (value, lease):
            return Outcome(succeeded=True, revision=found.mod_revision)
        return Outcome(succeeded=False, revision=answer.header.revision, found=found)

    async def delete_if(self, key: bytes, mod_revision: int) -> bool:
        """Deletes a key if its mod_revision is still that one; whether it is gone now."""
        delete = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
        answer = await self._transaction(key, mod_revision, delete)
        return answer.succeeded or not answer.responses[0].response_range.kvs

    async def lease_grant(self, ttl_s: int) -> int:
        """A new lease. Its id is chosen here, so that a second attempt finds the first one's instead of leaking it."""
        lease = random.getrandbits(62) + 1
        try:
            await self._request("lease", "LeaseGrant", rpc.LeaseGrantRequest(TTL=ttl_s, ID=lease))
        except RefusedError as error:
            if error.code is not StatusCode.FAILED_PRECONDITION:  # "lease already exists"
                raise
        return lease

    async def lease_keep_alive(self, lease: int) -> int:
        """Starts a lease's time anew; the seconds it has from now, 0 if there is no such lease any more."""

        async def once(session: Session) -> int:
            call = session.lease.LeaseKeepAlive(timeout=self._request_s, metadata=session.metadata)
            try:
                await call.write(rpc.LeaseKeepAliveRequest(ID=lease))
                return int(session.received(await call.read()).TTL)
            finally:
                call.cancel()

        return max(0, await self._anywhere(once))

    async def lease_time_to_live(self, lease: int) -> int:
        """The seconds a lease still has, 0 if there is no such lease any more."""
        answer = await self._request("lease", "LeaseTimeToLive", rpc.LeaseTimeToLiveRequest(ID=lease))
        return max(0, int(answer.TTL))

    async def lease_revoke(self, lease: int) -> None:
        """Ends a lease and deletes its keys; nothing happens if it is gone already."""
        try:
            await self._request("lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease))
        except RefusedError as error:
            if error.code is not StatusCode.NOT_FOUND:
                raise

    async def watch(self, prefix: bytes, revision: int) -> AsyncGenerator[Batch, None]:
        """Changes of all keys that begin with `prefix`, from `revision` on; ends only by an error.

        The first batch comes as soon as the watch stands and has no events: look at its cluster_id, and at its revision
        (one below `revision - 1` means that etcd has gone back, and would be silent until it has caught up). Every ten
        seconds an empty batch tells that all is well (etcd 3.4 and newer).

        Raises CompactedError, or RegistryError when the stream is lost: the endpoint is gone or silent (found out
        within 20 s), has no leader, or has ended the watch. Watch again then: that goes to the next endpoint. Close the
        generator (`contextlib.aclosing`) to end the watch.
        """
        async with self._using() as session, aclosing(batches(session, prefix, revision)) as received:
            try:
                async for batch in received:
                    yield batch
            except AwayError:
                self._leave(session)
                raise

    async def close(self) -> None:
        """Ends everything under way and closes the connection."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _transaction(self, key: bytes, mod_revision: int, change: Any) -> Any:
        compare = rpc.Compare(key=key, result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, mod_revision=mod_revision)
        look = rpc.RequestOp(request_range=rpc.RangeRequest(key=key))
        return await self._request("kv", "Txn", rpc.TxnRequest(compare=[compare], success=[change], failure=[look]))

    async def _request(self, service: str, method: str, request: Any) -> Any:
        async def once(session: Session) -> Any:
            call = getattr(getattr(session, service), method)
            return await call(request, timeout=self._request_s, metadata=session.metadata)

        return await self._anywhere(once)

    async def _anywhere(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Runs `work` on the endpoint in use, then on each of all in turn until one answers."""
        failures: dict[str, None] = {}
        for _ in range(len(self._urls) + (self._session is not None)):
            async with self._using() as session:
                try:
                    answer = await session.run(work)
                except AwayError as error:
                    failures[str(error)] = None
                    self._leave(session)
                else:
                    if failures:
                        again = "it answers again" if len(self._urls) == 1 else f"going on with {session.url}"
                        log.warning("%s; %s", "; ".join(failures), again)
                    return answer
        raise RegistryError("; ".join(failures))

    @asynccontextmanager
    async def _using(self) -> AsyncIterator[Session]:
        if self._closed:
            raise RegistryError("etcd: the client is closed")
        if self._session is None:
            try:
                self._session = Session(self._urls[self._index], self._access, self._request_s)
            except HostError as error:  # a certificate that is just being renewed
                raise RegistryError(str(error)) from None
        session = self._session
        session.users += 1
        try:
            yield session
        finally:
            session.users -= 1
            if not session.users and session is not self._session:
                await session.close()

    def _leave(self, session: Session) -> None:
        """Whoever comes next goes to the next endpoint."""
        if session is self._session:
            self._session = None
            self._index = (self._index + 1) % len(self._urls)
