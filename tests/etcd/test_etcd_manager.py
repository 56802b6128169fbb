"""etcd as the daemon's registry: what it waits for at the start, what it says meanwhile, and what it finds again."""

import asyncio
import logging
import re
import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from etcd_server import Etcd
from free_ports import free_ports
from node import CONFIG, Scene, until, value
from soundness import sound

from udpbackend.backends.backend import check_config
from udpbackend.errors import ConfigError, HostError, UsageError
from udpbackend.model import Attributes
from udpbackend.settings import Settings
from udpbackend.subnets.etcd import health, network, own
from udpbackend.subnets.etcd.manager import manager

DUAL = '{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48"}'


def told(caplog, words):
    """The messages with these words."""
    return [record.message for record in caplog.records if words in record.message]


async def test_what_it_says_of_itself(scene):
    async with scene.node() as node:
        state = node.manager.state
        assert (state.kind, state.source, state.degraded) == ("etcd", ",".join(scene.etcd.endpoints), None)
        assert node.manager.public_addresses == (None, None)
        await node.manager.complete(sound())


async def test_etcd_that_is_away_at_the_start_is_waited_for(able, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(health, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(health, "LONGEST_PAUSE_S", 0.2)
    ports = free_ports(2, "127.0.0.1")
    waiting = manager(Settings(etcd_endpoints=(f"http://127.0.0.1:{ports[0]}",)))
    try:
        opening = asyncio.create_task(waiting.open(check_config))
        await until(lambda: waiting.state.degraded, "it says so")
        await asyncio.sleep(0.5)  # some attempts, none of which may be told
        assert re.match(r"Couldn't fetch network config since 20\S+Z: .*Connection refused", waiting.state.degraded), (
            waiting.state.degraded
        )
        assert waiting.state.last_sync == 0
        assert len(told(caplog, "Couldn't fetch network config: etcd http://127.0.0.1")) == 1
        with Etcd(ports=ports) as etcd:
            Scene(etcd, "/coreos.com/network", tmp_path)
            assert str((await opening).network) == "10.5.0.0/16"
        assert waiting.state.degraded is None
    finally:
        await waiting.close()


async def test_etcd_that_answers_too_late_at_the_start_is_waited_for(able, tmp_path):
    with Etcd() as etcd:
        Scene(etcd, "/coreos.com/network", tmp_path)
        waiting = manager(Settings(etcd_endpoints=tuple(etcd.endpoints)))
        try:
            etcd.silence()
            opening = asyncio.create_task(waiting.open(check_config))
            await until(lambda: waiting.state.degraded, "it says so")
            etcd.wake()
            assert str((await opening).network) == "10.5.0.0/16"
            assert waiting.state.degraded is None
        finally:
            await waiting.close()


async def test_a_configuration_is_waited_for(scene, caplog, monkeypatch):
    monkeypatch.setattr(network, "PAUSE_S", 0.02)
    caplog.set_level(logging.INFO)
    scene.etcd.ctl("del", f"{scene.prefix}/config")
    node = scene.node()
    opening = asyncio.create_task(node.manager.open(check_config))
    try:
        for text, words in (
            (None, "flannel config not found in etcd store. Did you create your config using etcdv3 API?"),
            ("{", "not valid JSON"),
            ('{"Network":"10.5.0.0/29"}', "network is too small. Minimum useful network prefix is /28"),
            (CONFIG.replace('"udp"', '"vxlan","Port":"8472"'), "error decoding VXLAN backend config: "),
            (CONFIG.replace('"udp"', '"udp","Port":70000'), "Backend.Port: expected a port number from 1 to 65535"),
            (CONFIG.replace('"udp"', '"upd"'), "unknown backend type: upd"),
        ):
            if text:
                scene.configure(text)
            await until(lambda words=words: words in node.degraded, words)
            assert node.degraded.startswith("Couldn't fetch network config since ")
            assert len(told(caplog, words)) == 1
        scene.configure()
        assert str((await opening).network) == "10.5.0.0/16"
        assert not node.degraded
        assert len(told(caplog, "over after")) == 1
    finally:
        opening.cancel()
        await node.manager.close()


async def test_a_subnet_is_kept_over_a_restart(scene, tmp_path):
    async with scene.node() as node:
        first = node.lease
        assert str(first.subnet) == "10.5.1.0/24", "that of the subnet file"
        assert first.backend_data == b"null"
    (tmp_path / "subnet.env").unlink()
    node = scene.node()
    await node.manager.open(check_config)
    assert await node.manager.held(IPv4Address("192.0.2.1")) == first
    assert await node.manager.held(IPv4Address("192.0.2.2")) is None
    async with node:
        assert node.lease == first


async def test_a_lease_is_renewed_so_many_minutes_before_its_end(scene, caplog, monkeypatch):
    """A lease of 63 s and a margin of one minute: not at once, as with a longer one, nor a minute later."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(own, "TTL_S", 63)
    began = time.monotonic()
    async with scene.node(subnet_lease_renew_margin=1) as node:
        lease = scene.find(node.key)["lease"]
        await until(lambda: told(caplog, "renewed the lease"), "renewed")
        assert time.monotonic() - began > 1.5, "etcd counts in whole seconds"
        assert scene.find(node.key)["lease"] == lease


async def test_what_the_backend_says_is_passed_on(scene):
    scene.configure(DUAL)
    node = scene.node()
    node.attributes = Attributes(IPv4Address("192.0.2.1"), backend_data=b'{"udpbackend":1,"ipv6":true}')
    async with node:
        assert node.lease.backend_data == b'{"udpbackend":1,"ipv6":true}'
        name = f"{node.lease.subnet}&{node.lease.ipv6_subnet}".replace("/", "-")
        assert scene.get(name) == value("192.0.2.1")[:-1] + ',"BackendData":{"udpbackend":1,"ipv6":true}}'
        scene.delete(name)
        assert await node.error()


async def test_no_subnet_left(scene):
    scene.configure('{"Network":"10.5.0.0/28","SubnetLen":30}')
    for number in (4, 8, 12):
        scene.put(f"10.5.0.{number}-30", value(f"192.0.2.{number}"))
    node = scene.node()
    try:
        await node.manager.open(check_config)
        with pytest.raises(ConfigError, match="out of subnets"):
            await node.manager.acquire(node.attributes)
    finally:
        await node.manager.close()


CHANGES = {
    "network": (CONFIG.replace("10.5", "10.4"), "config: Network changed"),
    "port": (CONFIG.replace('"udp"', '"udp","Port":9000'), "config: Backend changed"),
    "broken": ("{", "config: not valid JSON"),
}


@pytest.mark.parametrize(("text", "words"), CHANGES.values(), ids=CHANGES)
async def test_another_configuration_needs_a_restart_and_says_so(scene, caplog, text, words):
    async with scene.node() as node:
        scene.configure(text)
        await until(lambda: words in node.degraded, words)
        assert node.degraded.startswith("restart needed since ")
        assert len(told(caplog, "restart needed: ")) == 1
        scene.configure(CONFIG.replace(":", " : "))
        await node.is_well()
        scene.etcd.ctl("del", f"{scene.prefix}/config")
        await until(lambda: "config is gone" in node.degraded, "gone")
        assert not node.running.done()


async def test_another_key_beside_the_configuration_is_not_one(scene):
    async with scene.node() as node:
        scene.etcd.ctl("put", f"{scene.prefix}/config2", "{")
        scene.peer(9)
        await node.sees("10.5.9.0/24")
        assert not node.degraded


def test_what_cannot_work_is_refused_at_once():
    with pytest.raises(UsageError, match="--etcd-endpoints: 'nowhere' is not an endpoint"):
        manager(Settings(etcd_endpoints=("nowhere",)))
    with pytest.raises(HostError, match="--etcd-cafile: cannot read /nowhere"):
        manager(Settings(etcd_cafile=Path("/nowhere")))
