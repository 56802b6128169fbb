"""A real etcd that has lost its data or stands on an older copy: it shows, and nobody who is missing is dropped."""

import asyncio
import re
import shutil

import pytest
from node import Cable, until, value


async def test_etcd_emptied(own_scene, caplog):
    """Our key is back at once; the others, who may need a day for it, are not dropped."""
    own_scene.peer(7)
    own_scene.peer(8)
    async with own_scene.node() as node:
        await node.sees("10.5.7.0/24", "10.5.8.0/24")
        await asyncio.to_thread(own_scene.etcd.empty)
        await until(lambda: own_scene.get(node.key) == value("192.0.2.1"), "our key is back")
        own_scene.peer(7)
        own_scene.peer(9)
        await node.sees("10.5.7.0/24", "10.5.8.0/24", "10.5.9.0/24")
        own_scene.delete("10.5.7.0-24")
        await node.sees("10.5.8.0/24", "10.5.9.0/24")
        own_scene.put("10.5.20.0-24", value("192.0.2.8"))
        await node.sees("10.5.9.0/24", "10.5.20.0/24")
        await until(lambda: "/coreos.com/network/config is gone" in node.degraded, "it needs a configuration")
        own_scene.configure()
        await node.is_well()
        assert own_scene.etcd.leases() == [node.manager._keeper.own.lease_id]
    [told] = [it.message for it in caplog.records if "lost its data" in it.message]
    assert re.search("missing leases, kept for 24 h: [12]$", told)  # one, if another is quicker to be back


async def test_an_older_copy_is_restored(own_scene, tmp_path, caplog):
    """It comes with the cluster's id and overtakes the old revision before we look; who came later is kept."""
    etcd, copy = own_scene.etcd, tmp_path / "copy"
    own_scene.peer(7)
    async with Cable(etcd.endpoints[0]) as cable, own_scene.node(cable.endpoint) as node:
        await node.sees("10.5.7.0/24")
        etcd.ctl("snapshot", "save", str(copy))
        own_scene.peer(8)
        own_scene.delete("10.5.7.0-24")
        await node.sees("10.5.8.0/24")
        cable.cut()
        await until(lambda: node.degraded, "it notices")
        await asyncio.to_thread(etcd.restore, copy)
        for number in (9, 10, 11):
            own_scene.peer(number)
        cable.mend()
        await node.sees(*(f"10.5.{number}.0/24" for number in (7, 8, 9, 10, 11)))
        assert not node.running.done()
    assert "missing leases, kept for 24 h: 1" in caplog.text


def emptied(own_scene, _copy):
    """The data directory is lost; the same flags make the same cluster id."""
    own_scene.etcd.stop()
    shutil.rmtree(own_scene.etcd.directory / "m0")
    own_scene.etcd.start()
    own_scene.etcd.ready()
    own_scene.configure()


def restored(own_scene, copy):
    own_scene.etcd.restore(copy)


@pytest.mark.parametrize("loses", [emptied, restored])
async def test_a_reset_that_has_grown_past_what_we_saw(own_scene, tmp_path, caplog, loses):
    """No number has gone back, and what there is says nothing: only etcd's past shows that nobody was deleted."""
    etcd, copy = own_scene.etcd, tmp_path / "copy"
    async with Cable(etcd.endpoints[0]) as cable, own_scene.node(cable.endpoint) as node:
        etcd.ctl("snapshot", "save", str(copy))
        own_scene.peer(7)
        own_scene.peer(8)
        await node.sees("10.5.7.0/24", "10.5.8.0/24")
        before, known = own_scene.revision(), len(node.snapshots)
        cable.cut()
        await until(lambda: node.degraded, "it notices")
        await asyncio.to_thread(loses, own_scene, copy)
        while own_scene.revision() <= before:
            etcd.ctl("put", "/other/user", "x")
        own_scene.peer(9)
        cable.mend()
        await node.sees("10.5.7.0/24", "10.5.8.0/24", "10.5.9.0/24")
        await until(lambda: own_scene.get(node.key) == value("192.0.2.1"), "our key is back")
        assert all(node.subnets(it) >= {"10.5.7.0/24", "10.5.8.0/24"} for it in node.snapshots[known:])
    assert "it has another past" in caplog.text
    assert "missing leases, kept for 24 h: 2" in caplog.text


async def test_what_was_deleted_while_we_were_cut_off_is_gone(own_scene, caplog):
    """A past that has it, and as it was, shows that nothing was lost."""
    own_scene.peer(7)
    own_scene.peer(8)
    async with Cable(own_scene.etcd.endpoints[0]) as cable, own_scene.node(cable.endpoint) as node:
        await node.sees("10.5.7.0/24", "10.5.8.0/24")
        cable.cut()
        await until(lambda: node.degraded, "it notices")
        own_scene.delete("10.5.7.0-24")
        cable.mend()
        await node.sees("10.5.8.0/24")
    assert "lost its data" not in caplog.text
