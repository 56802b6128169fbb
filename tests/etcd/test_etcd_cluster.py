"""Three members, of which some die, fall silent or lose their leader: calls and watches go on elsewhere."""

import asyncio
import time
from contextlib import aclosing

import pytest
from etcd_server import Etcd

from udpbackend.errors import RegistryError
from udpbackend.subnets.etcd.access import Access
from udpbackend.subnets.etcd.client import Client

DEADLINE_S = 30


@pytest.fixture
def cluster(able):
    with Etcd(members=3) as made:
        yield made


@pytest.fixture
async def client(cluster):
    made = Client(cluster.endpoints, Access(), request_s=1)
    yield made
    await made.close()


def in_use(client, cluster):
    return cluster.endpoints.index(client.endpoint)


async def eventually(call, *arguments):
    """What a caller does while a cluster finds a new leader."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await call(*arguments)
            except RegistryError:
                await asyncio.sleep(0.05)


async def ends(batches):
    """Waits for the end of a watch; the error it ends with."""
    async with asyncio.timeout(DEADLINE_S):
        try:
            async for _ in batches:
                pass
        except RegistryError as error:
            return str(error)


async def test_calls_go_on_when_their_member_dies(cluster, client):
    assert (await client.put_if(b"/a", b"1", 0, 0)).succeeded
    cluster.kill(in_use(client, cluster))
    assert (await eventually(client.get, b"/a")).value == b"1"
    lease = await client.lease_grant(60)
    assert await client.lease_keep_alive(lease) == 60
    cluster.kill(in_use(client, cluster))
    began = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        await client.get(b"/a")
    assert time.monotonic() - began < 6
    assert all(f"etcd {endpoint}: " in str(caught.value) for endpoint in cluster.endpoints)
    for number in range(3):
        if number not in cluster.running:
            cluster.start(number)
    assert (await eventually(client.get, b"/a")).value == b"1"


async def test_a_watch_goes_on_elsewhere_and_misses_nothing(cluster, client):
    seen, revision, complete = [], 1, asyncio.Event()

    async def follow():
        nonlocal revision
        while True:
            try:
                async with aclosing(client.watch(b"/k/", revision)) as batches:
                    async for batch in batches:
                        for event in batch.events:
                            seen.append(int(event.kv.value))
                            revision = event.kv.mod_revision + 1
                        if len(seen) >= 300:
                            complete.set()
            except RegistryError:
                await asyncio.sleep(0.01)

    following = asyncio.create_task(follow())
    for n in range(300):
        assert (await eventually(client.put_if, f"/k/{n}".encode(), str(n).encode(), 0, 0)).succeeded
        if n in (100, 200):
            number = in_use(client, cluster)
            cluster.kill(number)
            cluster.start(number)
    async with asyncio.timeout(DEADLINE_S):
        await complete.wait()
    following.cancel()
    assert seen == list(range(300))


async def test_a_member_without_a_leader_ends_its_watches_and_refuses_at_once(cluster, client):
    batches = client.watch(b"/", 0)
    await anext(batches)
    alone = in_use(client, cluster)
    for number in range(3):
        if number != alone:
            cluster.kill(number)
    assert "no leader" in await ends(batches)
    with pytest.raises(RegistryError, match="no leader"):
        await client.get(b"/a")


async def test_a_member_that_falls_silent_loses_its_watches_within_seconds(cluster, client):
    """Nothing is closed and the kernel of the other side answers: only the lack of an answer to a ping tells."""
    batches = client.watch(b"/", 0)
    await anext(batches)
    silent = in_use(client, cluster)
    cluster.silence(silent)
    began = time.monotonic()
    assert await ends(batches) in {
        f"etcd {cluster.endpoints[silent]}: {cause}"
        for cause in ("Stream removed (ping timeout)", "the connection broke")
    }
    assert time.monotonic() - began < 22
    again = client.watch(b"/", 0)
    assert (await anext(again)).events == ()
    assert in_use(client, cluster) != silent
    await again.aclose()
