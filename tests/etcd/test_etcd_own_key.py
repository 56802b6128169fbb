"""What becomes of our own key in a real etcd: revoked, it ends us; lost, it is put back; taken, we start over."""

import asyncio
import logging
from ipaddress import IPv4Address, IPv6Address

from node import Cable, until, value

from udpbackend.errors import LeaseRevokedError, RestartNeededError
from udpbackend.model import Attributes
from udpbackend.subnets.etcd import contest, health, judge, own

OURS = value("192.0.2.1")


async def is_back(scene, node):
    """Waits until our key stands again, with a lease that the keeper knows; nothing has ended."""

    def stands():
        kv = scene.find(node.key)
        return kv is not None and kv["lease"] == node.manager._keeper.own.lease_id and kv["value"] == OURS

    await until(stands, "our key is back")
    assert not node.running.done()


async def test_a_deleted_key_ends_us(scene):
    async with scene.node() as node:
        scene.delete(node.key)
        error = await node.error()
        assert isinstance(error, LeaseRevokedError)
        assert str(error) == "Lease has been revoked. Shutting down daemon."
        assert scene.get(node.key) == ""


async def test_a_revoked_lease_ends_us(scene):
    async with scene.node() as node:
        scene.etcd.ctl("lease", "revoke", f"{node.manager._keeper.own.lease_id:x}")
        assert isinstance(await node.error(), LeaseRevokedError)


async def test_another_key_that_begins_like_ours_does_not(scene):
    async with scene.node() as node:
        scene.put(f"{node.key}&fc00:0:0:1::-64", OURS)
        scene.delete(f"{node.key}&fc00:0:0:1::-64")
        scene.peer(9)
        await node.sees("10.5.9.0/24")
        assert not node.running.done()


async def test_a_key_deleted_while_we_were_cut_off_ends_us(scene):
    """Etcd remembers who did it: nobody but an administrator deletes a key before its time."""
    async with Cable(scene.etcd.endpoints[0]) as cable, scene.node(cable.endpoint) as node:
        cable.cut()
        await until(lambda: node.degraded, "it notices")
        scene.delete(node.key)
        cable.mend()
        assert isinstance(await node.error(), LeaseRevokedError)


async def test_a_key_of_whose_end_etcd_no_longer_knows_is_put_back(scene, caplog):
    async with Cable(scene.etcd.endpoints[0]) as cable, scene.node(cable.endpoint) as node:
        cable.cut()
        await until(lambda: node.degraded, "it notices")
        scene.delete(node.key)
        scene.peer(9)
        scene.etcd.ctl("compact", str(scene.revision()))
        cable.mend()
        await is_back(scene, node)
        await node.sees("10.5.9.0/24")
        assert all(node.lease in snapshot.leases for snapshot in node.snapshots)
        await until(lambda: "was gone: put back" in caplog.text, "it is told")


async def test_a_lease_that_ended_in_our_absence_is_put_back(scene, monkeypatch):
    """As after a day of sleep; here a lease lives two seconds."""
    monkeypatch.setattr(own, "TTL_S", 2)
    monkeypatch.setattr(judge, "SLACK_S", 0.0)
    async with Cable(scene.etcd.endpoints[0]) as cable, scene.node(cable.endpoint) as node:
        cable.cut()
        await until(lambda: scene.get(node.key) == "", "it has ended")
        monkeypatch.setattr(own, "TTL_S", 60)
        cable.mend()
        await is_back(scene, node)


async def test_a_reset_that_loses_our_key(own_scene):
    async with own_scene.node() as node:
        before = node.manager._keeper.own.lease_id
        await asyncio.to_thread(own_scene.etcd.empty)
        await is_back(own_scene, node)
        assert own_scene.etcd.leases() == [node.manager._keeper.own.lease_id]
        assert before != node.manager._keeper.own.lease_id


async def test_our_key_in_other_hands_makes_us_start_over(scene):
    async with Cable(scene.etcd.endpoints[0]) as cable, scene.node(cable.endpoint) as node:
        cable.cut()
        await until(lambda: node.degraded, "it notices")
        scene.delete(node.key)
        scene.put(node.key, value("192.0.2.66"))
        cable.mend()
        error = await node.error()
        assert isinstance(error, RestartNeededError)
        assert "192.0.2.66" in str(error)
    async with scene.node() as node:
        assert str(node.lease.subnet) != "10.5.1.0/24"


async def test_our_subnet_given_away_while_our_key_was_gone(own_scene):
    async with Cable(own_scene.etcd.endpoints[0]) as cable, own_scene.node(cable.endpoint) as node:
        cable.cut()
        await until(lambda: node.degraded, "it notices")
        await asyncio.to_thread(own_scene.etcd.empty)
        own_scene.put("10.5.1.0-25", value("192.0.2.66"))
        cable.mend()
        assert isinstance(await node.error(), RestartNeededError)


async def test_a_key_written_by_somebody_else_is_made_ours_again(scene):
    """As by an administrator without a lease, or by a second daemon of this host."""
    async with scene.node() as node:
        scene.put(node.key, OURS.replace("null", '"2001:db8::1"'))
        await until(lambda: scene.get(node.key) == OURS, "it says what we say")
        assert not node.running.done()


async def test_two_hosts_with_one_public_ip_say_so_until_one_goes(scene, monkeypatch, caplog):
    """Each would make their one key say its own, as fast as etcd can write."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(contest, "QUIET_S", 2.0)
    monkeypatch.setattr(health, "FIRST_PAUSE_S", 0.25)
    monkeypatch.setattr(health, "LONGEST_PAUSE_S", 0.25)
    words = "another host has our public IP"
    one, two = scene.node(), scene.node()
    for node, last in ((one, 1), (two, 2)):
        node.attributes = Attributes(IPv4Address("192.0.2.1"), IPv6Address(f"2001:db8::{last}"))
    async with one:
        async with two:
            await until(lambda: words in one.degraded and words in two.degraded, "both say so")
            assert not one.running.done()
            assert not two.running.done()
        await one.is_well()
        assert "2001:db8::1" in scene.get(one.key)
        assert scene.version(one.key) < 30
    told = [it.levelname for it in caplog.records if words in it.message]
    assert told == ["WARNING", "WARNING", "INFO"]


async def test_our_key_overwritten_by_another_node_makes_us_start_over(scene):
    async with scene.node() as node:
        scene.put(node.key, value("192.0.2.66"))
        assert isinstance(await node.error(), RestartNeededError)
