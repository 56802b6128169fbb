"""Keeping a lease in a real etcd: one lease object for ever, put back when lost, given up when it is another's."""

import asyncio
import logging
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import pytest
from etcd_server import Etcd

from udpbackend.errors import LeaseLostError
from udpbackend.model import Attributes
from udpbackend.subnets.etcd import own as own_module
from udpbackend.subnets.etcd import renew as renew_module
from udpbackend.subnets.etcd.access import Access
from udpbackend.subnets.etcd.acquire import Acquirer
from udpbackend.subnets.etcd.client import Client
from udpbackend.subnets.etcd.own import FOREVER, TTL_S, Writer, boottime
from udpbackend.subnets.etcd.renew import Keeper
from udpbackend.subnets.etcd.store import Store

OURS = Attributes(IPv4Address("192.168.78.1"))
VALUE = '{"PublicIP":"192.168.78.1","PublicIPv6":null}'
THEIRS = '{"PublicIP":"192.168.78.9","PublicIPv6":null}'
MARGIN_S = 3600
DEADLINE_S = 20


async def keeping(etcd, store, margin_s=MARGIN_S, **options):
    """A keeper of a fresh lease."""
    etcd.ctl("put", store.keys.config.decode(), '{"Network":"10.5.0.0/16"}')
    writer = Writer(store)
    own = await Acquirer(writer, await store.config()).acquire(OURS)
    return Keeper(writer, own, margin_s, **options)


@pytest.fixture
async def keeper(etcd, store):
    return await keeping(etcd, store)


@asynccontextmanager
async def running(keeper):
    task = asyncio.create_task(keeper.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  (what it waits for signals nobody)
            await asyncio.sleep(0.02)


async def test_renewals_keep_one_lease_and_write_nothing(etcd, client, keeper):
    own, leases = keeper.own, etcd.leases()
    for _ in range(3):
        await keeper.renew()
    assert keeper.own.lease_id == own.lease_id
    assert keeper.own.expires >= own.expires
    assert etcd.leases() == leases
    assert (await client.get(own.key)).version == 1


async def test_a_lease_outlives_its_time_again_and_again(etcd, store, monkeypatch):
    monkeypatch.setattr(own_module, "TTL_S", 6)
    keeper = await keeping(etcd, store, margin_s=4)
    left = []
    async with running(keeper) as task:
        end = boottime() + 13
        while boottime() < end:
            left.append(await store.client.lease_time_to_live(keeper.own.lease_id))
            await asyncio.sleep(0.1)
        assert not task.done()
    assert min(left) >= 1
    kv = await store.client.get(keeper.own.key)
    assert (kv.version, kv.lease) == (1, keeper.own.lease_id)


async def test_an_expired_lease_is_put_back_with_the_same_subnet(etcd, client, keeper, caplog):
    own, leases = keeper.own, etcd.leases()
    etcd.ctl("lease", "revoke", f"{own.lease_id:x}")
    await keeper.renew()
    assert (keeper.own.lease, keeper.own.key) == (own.lease, own.key)
    assert keeper.own.lease_id != own.lease_id
    assert (await client.get(own.key)).lease == keeper.own.lease_id
    assert len(etcd.leases()) == len(leases)
    assert f"our key {own.key.decode()} was gone: put back" in caplog.text


async def test_a_key_that_vanished_alone_is_put_back_under_its_lease(etcd, client, keeper):
    own, leases = keeper.own, etcd.leases()
    etcd.ctl("del", own.key.decode())
    await keeper.renew()
    assert keeper.own.lease_id == own.lease_id
    assert (await client.get(own.key)).lease == own.lease_id
    assert etcd.leases() == leases


async def test_an_emptied_etcd_gets_our_lease_back(able):
    with Etcd() as etcd:
        client = Client(etcd.endpoints, Access())
        keeper = await keeping(etcd, Store(client, "/net"))
        own = keeper.own
        etcd.empty()
        await keeper.renew()
        assert keeper.own.lease == own.lease
        assert etcd.ctl("get", "--print-value-only", own.key.decode()) == VALUE
        assert etcd.leases() == [keeper.own.lease_id]
        await client.close()


@pytest.mark.parametrize("how", ["same key", "overlap"])
async def test_a_subnet_given_to_another_meanwhile_is_lost(etcd, store, keeper, how):
    own = keeper.own
    etcd.ctl("lease", "revoke", f"{own.lease_id:x}")
    key = own.key if how == "same key" else store.keys.subnets + b"10.5.0.0-17"
    etcd.ctl("put", key.decode(), THEIRS)
    before = etcd.leases()
    with pytest.raises(LeaseLostError, match=rf"our subnet {own.lease.subnet} .* 192\.168\.78\.9"):
        await keeper.renew()
    assert etcd.leases() == before
    assert etcd.ctl("get", "--prefix", "--print-value-only", store.keys.subnets.decode()) == THEIRS


async def test_a_key_that_says_nothing_any_more_is_lost(etcd, keeper):
    etcd.ctl("put", keeper.own.key.decode(), "junk")
    with pytest.raises(LeaseLostError, match="belongs to nobody now"):
        await keeper.renew()
    assert etcd.ctl("get", "--print-value-only", keeper.own.key.decode()) == "junk"


async def test_a_key_written_again_for_us_is_taken_with_the_lease_it_has_now(etcd, client, keeper):
    own, leases = keeper.own, etcd.leases()
    theirs = int(etcd.ctl("lease", "grant", str(TTL_S)).split()[1], 16)
    other = VALUE.replace("null", '"2001:db8::1"')
    etcd.ctl("put", own.key.decode(), other, f"--lease={theirs:x}")
    await keeper.renew()
    kv = await client.get(own.key)
    assert (kv.value, kv.lease, keeper.own.lease_id) == (own.value, theirs, theirs)
    assert sorted(etcd.leases()) == sorted({*leases, theirs} - {own.lease_id})


async def test_a_change_in_between_is_seen_before_it_is_overwritten(etcd, client, keeper, monkeypatch):
    own, get, turns = keeper.own, client.get, []
    etcd.ctl("put", own.key.decode(), VALUE.replace("null", '"2001:db8::1"'))

    async def get_and_change(key):
        kv = await get(key)
        turns.append(kv)
        if len(turns) == 1:
            etcd.ctl("put", own.key.decode(), VALUE.replace("null", '"2001:db8::2"'))
        return kv

    monkeypatch.setattr(client, "get", get_and_change)
    await keeper.renew()
    assert len(turns) == 2
    assert turns[1].mod_revision > turns[0].mod_revision
    assert (await get(own.key)).value == own.value


async def test_a_lease_made_a_reservation_stays_one_and_is_not_renewed(etcd, client, keeper):
    own, leases = keeper.own, etcd.leases()
    etcd.ctl("put", own.key.decode(), VALUE)
    await keeper.renew()
    assert (keeper.own.lease_id, keeper.own.expires) == (0, FOREVER)
    assert (await client.get(own.key)).lease == 0
    assert sorted(etcd.leases()) == sorted(set(leases) - {own.lease_id})
    await keeper.renew()
    assert (await client.get(own.key)).version == 2
    async with running(keeper) as task:
        await asyncio.sleep(0)
        assert not task.done()


async def test_an_etcd_that_is_away_is_asked_again_until_it_is_back(able, monkeypatch, caplog):
    monkeypatch.setattr(renew_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(renew_module, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(own_module, "TTL_S", 3000)
    with Etcd() as etcd:
        client = Client(etcd.endpoints, Access())
        keeper = await keeping(etcd, Store(client, "/net"))  # its margin is longer than the lease: always due
        own = keeper.own
        etcd.stop()
        with caplog.at_level(logging.WARNING):
            async with running(keeper) as task:
                await until(lambda: keeper.problem)
                assert "Connection refused" in keeper.problem
                etcd.start()
                etcd.ready()
                await until(lambda: keeper.problem is None)
                assert not task.done()
        complaints = [it for it in caplog.messages if "cannot be looked after: etcd" in it and "refused" in it]
        assert 1 <= len(complaints) == len(set(complaints)) <= 2  # the broken connection may be named once more
        assert keeper.own.lease_id == own.lease_id
        await client.close()


async def test_after_a_suspend_the_lease_is_looked_at_within_a_slice(etcd, store, monkeypatch):
    """The host sleeps for 23 h: its boot clock jumps, the loop's clock does not, and etcd's lease has run on."""
    now = 1000.0
    keeper = await keeping(etcd, store, clock=lambda: now, slice_s=0.01)
    client, looks, left_s = store.client, [], [TTL_S]

    async def look(_lease):
        looks.append(now)
        return left_s[0]

    async def keep_alive(_lease):
        left_s[0] = TTL_S
        return TTL_S

    monkeypatch.setattr(client, "lease_time_to_live", look)
    monkeypatch.setattr(client, "lease_keep_alive", keep_alive)
    async with running(keeper):
        await until(lambda: looks)
        await asyncio.sleep(0.1)
        assert looks == [1000.0]
        left_s[0] = TTL_S - 23 * 3600
        now += 23 * 3600
        await until(lambda: left_s[0] == TTL_S)
    assert looks[1] == now
