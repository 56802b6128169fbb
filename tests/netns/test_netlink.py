"""The netlink thread, and the interfaces of a real kernel; each test in a namespace of its own."""

import asyncio
import threading
import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from flannel0_facts import OVERLAY
from inside import SOON_S, in_namespace, ip, until

from udpbackend.dataplane.tun import open_tun
from udpbackend.errors import HostError
from udpbackend.host.addresses import local_addresses, read_links, select_endpoint
from udpbackend.host.flannel0 import OverlayLink
from udpbackend.host.netlink import SETTLE_S, Netlink, failing
from udpbackend.settings import Settings


def open_files():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@in_namespace
async def test_changes_are_told_once_for_many():
    async with Netlink() as netlink:
        first, second = netlink.changes(), netlink.changes()
        assert not first.is_set()
        ip("link", "set", "lo", "up")
        await asyncio.wait_for(asyncio.gather(first.wait(), second.wait()), SOON_S)
        first.clear()
        for number in range(20):
            ip("addr", "add", f"192.0.2.{number}/32", "dev", "lo")
        await asyncio.wait_for(first.wait(), SOON_S)


@in_namespace
async def test_a_start_that_is_cancelled_takes_the_thread_along():
    netlink = Netlink()
    start = asyncio.create_task(netlink.__aenter__())
    await asyncio.sleep(0)  # it waits for its thread
    start.cancel()
    await asyncio.wait((start,), timeout=5)
    assert start.cancelled(), "it waits for ever"
    assert not netlink._thread.is_alive()


@in_namespace
async def test_an_overflow_counts_as_a_change_and_is_survived(tmp_path):
    ip("link", "set", "lo", "up")
    batch = tmp_path / "batch"
    batch.write_text("".join(f"route add 172.16.{i // 256}.{i % 256}/32 dev lo\n" for i in range(5000)))
    held, release = threading.Event(), threading.Event()

    async def hold(_):
        held.set()
        release.wait(20)

    async with Netlink() as netlink:
        changed = netlink.changes()
        asleep = asyncio.create_task(netlink.call(hold))
        await until(held.is_set)
        ip("-batch", batch)  # while the thread cannot read: some 700 KB against a buffer of 200 KB
        release.set()
        await asleep
        await asyncio.wait_for(changed.wait(), SOON_S)
        await asyncio.sleep(4 * SETTLE_S)
        changed.clear()
        ip("link", "add", "br0", "type", "bridge")
        await asyncio.wait_for(changed.wait(), SOON_S)


@in_namespace
async def test_the_thread_ends_at_once_and_leaves_nothing():
    before = open_files()
    for _ in range(3):
        async with Netlink() as netlink:
            netlink.changes()
            for _ in range(20):
                await read_links(netlink)
            waiting = asyncio.create_task(netlink.call(lambda _: asyncio.sleep(60)))
            await asyncio.sleep(0.05)
            began = time.monotonic()
        assert time.monotonic() - began < SOON_S
        assert not [t for t in threading.enumerate() if t.name == "netlink"]
        with pytest.raises(HostError, match="the netlink thread has ended"):
            await waiting
        with pytest.raises(HostError, match="the netlink thread has ended"):
            await netlink.call(lambda _: asyncio.sleep(0))
    assert open_files() == before


@in_namespace
async def test_a_cancelled_call_frees_the_next():
    async with Netlink() as netlink:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(netlink.call(lambda _: asyncio.sleep(60)), 0.05)
        assert await asyncio.wait_for(read_links(netlink), SOON_S)


@in_namespace
async def test_the_kernels_refusal_becomes_one_line():
    async def add(api):
        with failing("add a route"):
            await api.route("add", dst="10.9.0.0/16", gateway="192.0.2.1")

    async with Netlink() as netlink:
        with pytest.raises(HostError, match=r"^cannot add a route: Network is unreachable \(.+\)$"):
            await netlink.call(add)


@in_namespace
async def test_interfaces_of_a_real_host():
    ip("link", "set", "lo", "up")
    for name, network, mtu in (("eth0", "192.0.2.10/24", 1500), ("eth1", "198.51.100.7/24", 1400)):
        ip("link", "add", name, "mtu", mtu, "type", "bridge")
        ip("addr", "add", network, "dev", name)
        ip("link", "set", name, "up")
    async with Netlink() as netlink:
        with pytest.raises(HostError, match="unable to find default route; this host has lo"):
            await select_endpoint(netlink, Settings())
        ip("route", "add", "default", "via", "198.51.100.1", "metric", "50")
        ip("route", "add", "default", "via", "192.0.2.1", "metric", "60")
        with open_tun("flannel0"):
            await OverlayLink(netlink).configure(OVERLAY)

            async def found(**flags):
                endpoint = await select_endpoint(netlink, Settings(**flags))
                return endpoint.interface, endpoint.mtu, str(endpoint.address)

            assert await found() == ("eth1", 1400, "198.51.100.7")
            assert await found(public_ip=IPv4Address("192.0.2.10")) == ("eth0", 1500, "192.0.2.10")
            assert await found(iface_can_reach=IPv4Address("192.0.2.77")) == ("eth0", 1500, "192.0.2.10")
            assert await found(iface_can_reach=IPv4Address("192.0.2.10")) == ("eth0", 1500, "192.0.2.10")
            with pytest.raises(HostError, match=r"Could not match pattern \^10"):
                await found(iface_regex=("^10",))  # flannel0's own address does not count
            ip("route", "flush", "default")
            with pytest.raises(HostError, match=r"couldn't lookup route to 203\.0\.113\.1: Network is unreachable"):
                await found(iface_can_reach=IPv4Address("203.0.113.1"))
            mine = ["10.5.3.0", "127.0.0.1", "192.0.2.10", "198.51.100.7", "::1", "2001:db8::5"]
            ip("addr", "add", "2001:db8::5/64", "dev", "eth1")
            assert [str(address) for address in await local_addresses(netlink)] == mine
            assert "inet6 fe80::" in ip("addr", "show"), "there are link-local ones to be left out"


@in_namespace
async def test_marks_of_addresses():
    ip("link", "add", "eth0", "type", "bridge")
    ip("addr", "add", "192.0.2.1/24", "dev", "eth0", "valid_lft", "600", "preferred_lft", "300")
    ip("addr", "add", "192.0.2.2/24", "dev", "eth0")
    ip("addr", "add", "192.0.2.4/32", "peer", "198.51.100.9", "dev", "eth0", "valid_lft", "600", "preferred_lft", "0")
    async with Netlink() as netlink:
        link = next(link for link in await read_links(netlink) if link.name == "eth0")
        marks = {str(a.ip): (a.dynamic, a.temporary, a.deprecated) for a in link.addresses}
        assert marks == {
            "192.0.2.1": (True, False, False),
            "192.0.2.2": (False, True, False),
            "192.0.2.4": (True, False, True),
        }
        assert (await select_endpoint(netlink, Settings(iface=("eth0",)))).address == IPv4Address("192.0.2.2")
