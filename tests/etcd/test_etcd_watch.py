"""Following a real etcd through all that can happen to it: the right leases in the end, nobody dropped meanwhile."""

import asyncio
import logging
import time

from between import Doubled
from etcd_server import Etcd
from node import DEADLINE_S, Cable, Scene, until, value

from bench.lab.wait import LabError
from bench.lab.wait import until as until_done
from udpbackend.subnets.etcd import stream, watch

BURST = 300


def retried(change, *arguments):
    """Until etcd has a leader again."""

    def done():
        try:
            change(*arguments)
        except LabError:
            return False
        return True

    until_done(done, DEADLINE_S, "no change is possible")


async def test_leases_come_change_and_go(scene):
    scene.peer(7)
    async with scene.node() as node:
        await node.sees("10.5.7.0/24")
        scene.peer(8)
        await node.sees("10.5.7.0/24", "10.5.8.0/24")
        scene.put("10.5.8.0-24", value("192.0.2.99"))
        await until(lambda: any(str(it.public_address) == "192.0.2.99" for it in node.snapshots[-1].leases), "changed")
        gone = scene.delete("10.5.7.0-24")
        await node.sees("10.5.8.0/24")
        revisions = [snapshot.revision for snapshot in node.snapshots]
        assert revisions == sorted(set(revisions))
        assert node.manager.state.revision == revisions[-1] >= gone  # a lease of another test may just have run out
        assert not node.degraded


async def test_what_is_told_twice_counts_once(scene):
    async with Doubled(scene.etcd.endpoints[0]) as doubled, scene.node(doubled.endpoint) as node:
        scene.peer(7)
        await node.sees("10.5.7.0/24")
        scene.put("10.5.7.0-24", value("192.0.2.99"))
        await until(lambda: any(str(it.public_address) == "192.0.2.99" for it in node.snapshots[-1].leases), "changed")
        scene.delete("10.5.7.0-24")
        await node.sees()
        scene.peer(8)
        await node.sees("10.5.8.0/24")
        assert doubled.told > len(node.snapshots)
        assert [node.subnets(it) for it in node.snapshots] == [
            set(), {"10.5.7.0/24"}, {"10.5.7.0/24"}, set(), {"10.5.8.0/24"}
        ]  # fmt: skip
        assert not node.degraded


async def test_malformed_keys_are_told_once_and_cost_nobody(scene, caplog):
    async with scene.node() as node:
        scene.peer(7)
        await node.sees("10.5.7.0/24")
        for _ in range(2):
            scene.put("garbage", "x")
            scene.put("10.5.8.0-24", "not JSON")
            scene.put("10.5.9.0-24", '{"PublicIP":"300.1.1.1"}')
        scene.delete("garbage")
        scene.peer(10)
        await node.sees("10.5.7.0/24", "10.5.10.0/24")
        assert all(node.subnets(it) >= {"10.5.7.0/24"} for it in node.snapshots[1:])
    told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 3, told


async def test_a_burst_makes_few_snapshots_and_renewals_none(scene, client):
    """As many changes as fit into a second, and some more."""
    async with scene.node() as node:
        names = [f"{scene.prefix}/subnets/10.5.{n // 8 + 100}.{n % 8 * 32}-27".encode() for n in range(BURST)]
        revisions, before, began = {}, len(node.snapshots), time.monotonic()
        for n, name in enumerate(names):
            outcome = await client.put_if(name, value(f"198.51.{n // 200}.{n % 200 + 1}").encode(), 0, 0)
            revisions[name] = outcome.revision
        await until(lambda: len(node.subnets()) == BURST, "all are seen")
        most = (time.monotonic() - began) / watch.SNAPSHOT_INTERVAL_S + 2
        assert len(node.snapshots) - before <= most
        before = len(node.snapshots)
        for n, name in enumerate(names):
            outcome = await client.put_if(name, value(f"198.51.{n // 200}.{n % 200 + 1}").encode(), 0, revisions[name])
            assert outcome.succeeded
        scene.peer(200)
        await until(lambda: len(node.subnets()) == BURST + 1, "the last is seen")
        assert len(node.snapshots) == before + 1


async def test_a_quiet_network_is_not_an_old_one(scene, monkeypatch):
    monkeypatch.setattr(stream, "PROGRESS_S", 0.1)
    async with scene.node() as node:
        seen = node.manager.state.last_sync
        assert abs(seen - time.time()) < 10
        await until(lambda: node.manager.state.last_sync > seen + 0.5, "the view stays young")
        assert len(node.snapshots) == 1


async def test_a_compaction_between_list_and_watch(scene, monkeypatch):
    """What was changed in between is forgotten by etcd; only another list shows it."""
    scene.peer(7)
    node = scene.node()
    listed, client, get_prefix = [], node.manager._client, node.manager._client.get_prefix

    async def get_prefix_and_compact(prefix, revision=0):
        listing = await get_prefix(prefix, revision)
        if prefix.endswith(b"/subnets/") and hasattr(node, "lease"):
            listed.append(listing.revision)
            if len(listed) == 1:
                scene.delete("10.5.7.0-24")
                scene.peer(8)
                scene.etcd.ctl("compact", str(scene.revision()))
        return listing

    monkeypatch.setattr(client, "get_prefix", get_prefix_and_compact)
    async with node:
        await node.sees("10.5.8.0/24")
        assert node.subnets(node.snapshots[0]) == {"10.5.7.0/24"}
        assert len(listed) == 2
        assert not node.degraded


async def test_a_compaction_does_not_disturb_a_watch(scene):
    async with scene.node() as node:
        scene.peer(7)
        await node.sees("10.5.7.0/24")
        scene.etcd.ctl("compact", str(scene.revision()))
        scene.peer(8)
        await node.sees("10.5.7.0/24", "10.5.8.0/24")
        assert all(node.subnets(it) >= {"10.5.7.0/24"} for it in node.snapshots[1:])


async def test_a_gap_is_made_up_for_by_a_list(scene, caplog):
    """Cut off while everything changes and etcd forgets what there was."""
    caplog.set_level(logging.INFO)
    scene.peer(7)
    scene.peer(8)
    async with Cable(scene.etcd.endpoints[0]) as cable, scene.node(cable.endpoint) as node:
        await node.sees("10.5.7.0/24", "10.5.8.0/24")
        cable.cut()
        await until(lambda: node.degraded, "it notices")
        assert node.degraded.startswith("cannot follow the leases since 20")
        assert cable.endpoint in node.degraded
        scene.delete("10.5.8.0-24")
        scene.peer(9)
        scene.etcd.ctl("compact", str(scene.revision()))
        cable.mend()
        await node.sees("10.5.7.0/24", "10.5.9.0/24")
        await node.is_well()
        assert all("10.5.7.0/24" in node.subnets(it) for it in node.snapshots)
    assert [it.levelname for it in caplog.records if "cannot follow the leases" in it.message] == ["WARNING", "INFO"]


async def test_etcd_restarted(own_scene):
    own_scene.peer(7)
    async with own_scene.node() as node:
        await node.sees("10.5.7.0/24")
        await asyncio.to_thread(own_scene.etcd.stop)
        await until(lambda: node.degraded, "it notices")
        synced, snapshots = node.manager.state.last_sync, len(node.snapshots)
        assert synced
        own_scene.etcd.start()
        await asyncio.to_thread(own_scene.etcd.ready)
        await node.is_well()
        assert node.manager.state.last_sync > synced
        assert len(node.snapshots) == snapshots, "nothing has changed"
        own_scene.peer(8)
        await node.sees("10.5.7.0/24", "10.5.8.0/24")
        assert not node.running.done()


async def test_the_member_we_watch_is_killed(able, tmp_path):
    with Etcd(members=3) as etcd:
        scene = Scene(etcd, "/coreos.com/network", tmp_path)
        scene.peer(7)
        async with scene.node() as node:
            await node.sees("10.5.7.0/24")
            for number in (8, 9):
                member = etcd.endpoints.index(node.manager._client.endpoint)
                await asyncio.to_thread(etcd.kill, member)
                await asyncio.to_thread(retried, scene.peer, number)
                await until(lambda name=f"10.5.{number}.0/24": name in node.subnets(), f"peer {number}")
                await node.is_well()
                etcd.start(member)
                await asyncio.to_thread(etcd.ready)
            assert node.subnets() == {"10.5.7.0/24", "10.5.8.0/24", "10.5.9.0/24"}
            assert all("10.5.7.0/24" in node.subnets(it) for it in node.snapshots)
            assert not node.running.done()


async def test_a_cluster_without_a_leader(able, tmp_path):
    """The last member still has all the data, but nobody to say that it is the newest."""
    with Etcd(members=3) as etcd:
        scene = Scene(etcd, "/coreos.com/network", tmp_path)
        scene.peer(7)
        async with scene.node() as node:
            await node.sees("10.5.7.0/24")
            for member in (0, 1):
                await asyncio.to_thread(etcd.kill, member)
            await until(lambda: node.degraded, "it notices")
            for member in (0, 1):
                etcd.start(member)
            await asyncio.to_thread(etcd.ready)
            scene.peer(8)
            await node.sees("10.5.7.0/24", "10.5.8.0/24")
            await node.is_well()
            assert all("10.5.7.0/24" in node.subnets(it) for it in node.snapshots)
            assert not node.running.done()
