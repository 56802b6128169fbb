"""flannel0 and the interfaces of a real kernel, each test in a network namespace of its own."""

import asyncio
import codecs
import errno
import fcntl
import os
import select
import struct
import threading
import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import pytun
from inside import in_namespace, ip, until

from udpbackend.dataplane import tun
from udpbackend.dataplane.tun import check_tun_access, open_tun
from udpbackend.errors import HostError
from udpbackend.host.addresses import local_addresses, read_links, select_endpoint
from udpbackend.host.flannel0 import OverlayLink, Presence
from udpbackend.host.netlink import SETTLE_S, Netlink, failing
from udpbackend.host.overlay_plan import ALIAS, Overlay
from udpbackend.model import Prefix
from udpbackend.settings import Settings

NETWORK = Prefix.parse("10.5.0.0/16")
OVERLAY = Overlay(IPv4Address("10.5.3.0"), NETWORK, 1472)
ROUTE = "10.5.0.0/16 dev flannel0"
TUNGETIFF = 0x800454D2
NOBODY = 65534


def routes():
    return [line.strip() for line in ip("route", "show", "table", "main").splitlines()]


def addresses(device="flannel0"):
    [shown] = ip("-j", "-4", "addr", "show", device) or [{"addr_info": []}]
    return [(held["local"], held["prefixlen"], held["scope"]) for held in shown["addr_info"]]


def sysctl(name):
    return Path("/proc/sys/net", name).read_text(encoding="ascii").strip()


def set_sysctl(name, value):
    Path("/proc/sys/net", name).write_text(value, encoding="ascii")


def open_files():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


# The device


@in_namespace
async def test_a_new_device_is_what_flannel_makes_and_a_little_more():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        assert (await link.inspect()).presence is Presence.ABSENT
        with open_tun("flannel0", new=True) as queue:
            assert (await link.inspect()).presence is Presence.FOREIGN, "not marked yet"
            assert len(await link.configure(OVERLAY)) == 7
            queue.persist()

            [shown] = ip("-j", "-d", "link", "show", "flannel0")
            assert (shown["ifalias"], shown["mtu"], shown["inet6_addr_gen_mode"]) == (ALIAS, 1472, "none")
            assert "UP" in shown["flags"]
            assert addresses() == [("10.5.3.0", 32, "global")]
            assert routes() == [ROUTE]
            assert sysctl("ipv4/conf/flannel0/accept_local") == "1"

            state = await link.inspect()
            assert (state.presence, state.index, state.mtu, state.up, state.queues) == (
                *(Presence.IN_USE, shown["ifindex"]),
                *(1472, True, 1),
            )
            assert await link.problems() == ()
        assert (await link.inspect()).presence is Presence.OURS


@in_namespace
def test_the_fd_is_ready_for_the_dataplane():
    with open_tun("flannel0") as first, open_tun("flannel0") as second:
        for queue in (first, second):
            assert not os.get_blocking(queue.fileno())
            assert not os.get_inheritable(queue.fileno())
            (flags,) = struct.unpack_from("H", fcntl.ioctl(queue.fileno(), TUNGETIFF, bytes(40)), 16)
            assert flags & tun.FLAGS == tun.FLAGS
        first.close()
        first.close()


@in_namespace
def test_an_unfinished_device_does_not_stay():
    open_tun("flannel0", new=True).close()
    assert ip("-j", "link", "show", "type", "tun") == []


@in_namespace
async def test_it_sends_nothing_of_its_own():
    async with Netlink() as netlink:
        with open_tun("flannel0") as queue:
            await OverlayLink(netlink).configure(OVERLAY)
            assert ip("-6", "addr", "show", "dev", "flannel0") == ""
            readable, _, _ = select.select([queue.fileno()], [], [], 1.5)
            assert not readable, os.read(queue.fileno(), 2048).hex()


@in_namespace
async def test_it_works_where_ipv6_is_off():
    set_sysctl("ipv6/conf/default/disable_ipv6", "1")
    async with Netlink() as netlink:
        with open_tun("flannel0"):
            await OverlayLink(netlink).configure(OVERLAY)
            assert routes() == [ROUTE]


@in_namespace
async def test_a_tiny_mtu_takes_ipv6_off_the_device_and_is_no_obstacle():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"):
            await link.configure(Overlay(OVERLAY.address, NETWORK, 1000))
            await link.configure(Overlay(OVERLAY.address, NETWORK, 1001))
            assert await link.problems() == ()


# Taking over


@in_namespace
async def test_taking_over_changes_nothing():
    async with Netlink() as netlink:
        with open_tun("flannel0", new=True) as queue:
            await OverlayLink(netlink).configure(OVERLAY)
            queue.persist()
        before = ip("-j", "-d", "link", "show", "flannel0")[0]["ifindex"]
        link = OverlayLink(netlink)
        assert (await link.inspect()).presence is Presence.OURS
        with open_tun("flannel0"):
            changed = netlink.changes()
            await asyncio.sleep(2 * SETTLE_S)  # what opening the queue caused
            changed.clear()
            assert await link.configure(OVERLAY) == ()
            await asyncio.sleep(2 * SETTLE_S)
            assert not changed.is_set(), "the kernel announced a change"
            assert (await link.inspect()).index == before
            assert routes() == [ROUTE]


@in_namespace
async def test_another_subnet_and_network_replace_the_old_ones():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"):
            await link.configure(OVERLAY)
            ip("route", "add", "172.16.0.0/16", "dev", "flannel0", "proto", "static", "scope", "link")
            ip("addr", "add", "10.5.77.1/24", "dev", "flannel0")
            done = await link.configure(Overlay(IPv4Address("10.6.1.0"), Prefix.parse("10.6.0.0/16"), 1400))
            assert len(done) == 6, done
            assert addresses() == [("10.6.1.0", 32, "global")]
            assert sorted(routes()) == [
                "10.6.0.0/16 dev flannel0",
                "172.16.0.0/16 dev flannel0 proto static scope link",
            ]
            assert await link.problems() == ()


@in_namespace
async def test_a_route_with_another_owner_of_the_same_prefix_is_replaced_with_its_address():
    async with Netlink() as netlink:
        with open_tun("flannel0"):
            ip("addr", "add", "10.5.3.0/16", "dev", "flannel0")
            ip("link", "set", "flannel0", "up")
            assert "proto kernel" in routes()[0]
            await OverlayLink(netlink).configure(OVERLAY)
            assert (addresses(), routes()) == ([("10.5.3.0", 32, "global")], [ROUTE])


@in_namespace
async def test_who_uses_it_is_seen():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"), open_tun("flannel0"):
            await link.configure(OVERLAY)
            state = await link.inspect()
            assert (state.presence, state.queues) == (Presence.IN_USE, 2)


# What is not ours


@in_namespace
async def test_another_programs_tun_is_left_alone():
    device = pytun.TunTapDevice(name="flannel0", flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
    device.persist(True)  # noqa: FBT003 pytun takes it by position
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        for holder in (device, None):
            state = await link.inspect()
            assert state.presence is Presence.FOREIGN
            assert state.why.startswith("flannel0 was made by another program: its alias is ''")
            with pytest.raises(HostError, match="flannel0 is not removed: flannel0 was made by another program"):
                await link.remove()
            with pytest.raises(HostError, match="a device flannel0 of another kind or with other flags exists"):
                open_tun("flannel0")
            if holder:
                holder.close()
    assert [shown["ifname"] for shown in ip("-j", "link", "show", "type", "tun")] == ["flannel0"]


@in_namespace
async def test_a_device_of_another_kind_is_left_alone():
    ip("link", "add", "flannel0", "type", "bridge")
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        assert (await link.inspect()).why == "flannel0 is a bridge device, expected a TUN made by udp-backend"
        with pytest.raises(HostError, match="cannot configure flannel0: flannel0 is a bridge device"):
            await link.configure(OVERLAY)
        with pytest.raises(HostError, match="of another kind"):
            open_tun("flannel0")


@in_namespace
async def test_nothing_to_configure():
    async with Netlink() as netlink:
        with pytest.raises(HostError, match="cannot configure flannel0: there is no such device"):
            await OverlayLink(netlink).configure(OVERLAY)
        with pytest.raises(HostError, match="has not been configured"):
            await OverlayLink(netlink).ensure()


@in_namespace
def test_two_starts_at_once_do_not_share_a_device():
    with open_tun("flannel0", new=True), pytest.raises(HostError, match="another program has just made flannel0"):
        open_tun("flannel0", new=True)


@pytest.mark.parametrize("metric", [0, 100])
@in_namespace
async def test_another_devices_route_is_never_taken(metric):
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "br0", "up")
    ip("route", "add", "10.5.0.0/16", "dev", "br0", "metric", metric)
    before = routes()
    async with Netlink() as netlink:
        with open_tun("flannel0"):
            with pytest.raises(
                HostError, match=r"the route 10\.5\.0\.0/16 dev br0.* is there already and flannel0 needs"
            ):
                await OverlayLink(netlink).configure(OVERLAY)
            assert (routes(), addresses()) == (before, [])


# Repair


@in_namespace
async def test_what_goes_missing_is_put_back():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"):
            await link.configure(OVERLAY)
            ip("route", "add", "172.16.0.0/16", "dev", "flannel0")
            ip("addr", "add", "10.5.77.1/24", "dev", "flannel0")
            for words in (
                ("route", "del", "10.5.0.0/16"),
                ("addr", "del", "10.5.3.0/32", "dev", "flannel0"),
                ("link", "set", "flannel0", "mtu", "1400"),
                ("link", "set", "flannel0", "alias", ""),
            ):
                ip(*words)
            set_sysctl("ipv4/conf/flannel0/accept_local", "0")
            assert len(await link.problems()) == 5
            repair = await link.ensure()
            assert (len(repair.done), repair.left, repair.gone) == (5, (), False)
            assert await link.ensure() == type(repair)()
            assert ROUTE in routes()
            assert ("10.5.3.0", 32, "global") in addresses()
            assert ("10.5.77.1", 24, "global") in addresses(), "what the administrator added stays"
            assert "172.16.0.0/16 dev flannel0 scope link" in routes()


@in_namespace
async def test_a_link_set_down_stays_down_and_its_routes_return_with_it():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"):
            await link.configure(OVERLAY)
            changed = netlink.changes()
            ip("link", "set", "flannel0", "down")
            await asyncio.wait_for(changed.wait(), 1)
            repair = await link.ensure()
            assert repair.done == ()
            assert repair.left == ("flannel0 is down: ip link set flannel0 up brings it back, its routes follow",)
            assert routes() == []
            await asyncio.sleep(2 * SETTLE_S)
            changed.clear()
            ip("link", "set", "flannel0", "up")
            await asyncio.wait_for(changed.wait(), 1)
            assert (await link.ensure()).done == ("the route 10.5.0.0/16 dev flannel0 is missing",)
            assert routes() == [ROUTE]


@in_namespace
async def test_what_cannot_be_mended_is_told():
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "br0", "up")
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"):
            await link.configure(OVERLAY)
            ip("route", "replace", "10.5.0.0/16", "dev", "br0")
            repair = await link.ensure()
            assert repair.done == ()
            assert "the route 10.5.0.0/16 dev br0 is there already" in repair.left[0]


@in_namespace
async def test_a_deleted_device_is_told():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0") as queue:
            await link.configure(OVERLAY)
            ip("link", "del", "flannel0")
            assert (await link.ensure()).gone
            with pytest.raises(OSError, match=os.strerror(errno.EBADFD)):
                os.read(queue.fileno(), 1)


@in_namespace
async def test_it_is_removed_with_all_that_hangs_on_it():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0") as queue:
            await link.configure(OVERLAY)
            queue.persist()
        assert await link.remove()
        assert not await link.remove()
        assert (await link.inspect()).presence is Presence.ABSENT
    assert routes() == []


# Access


@in_namespace
def test_access_is_proved_without_a_trace(monkeypatch):
    check_tun_access()
    assert ip("-j", "link", "show", "type", "tun") == []
    monkeypatch.setattr(tun, "DEVICE", Path("/dev/net/nothing"))
    with pytest.raises(HostError, match="is missing: load the module"):
        check_tun_access()
    monkeypatch.setattr(tun, "DEVICE", Path("/dev/null"))
    os.setuid(NOBODY)
    with pytest.raises(HostError, match="NET_ADMIN"):
        check_tun_access()
    with pytest.raises(HostError, match="cannot open TUN device flannel0: not permitted"):
        open_tun("flannel0")


@in_namespace
async def test_the_missing_capability_is_named():
    with open_tun("flannel0"):
        codecs.lookup("ascii")  # nobody cannot read the library it would be loaded from
        os.setuid(NOBODY)
        async with Netlink() as netlink:
            with pytest.raises(HostError, match=r"Operation not permitted.*the capability NET_ADMIN is needed"):
                await OverlayLink(netlink).configure(OVERLAY)


# The netlink thread


@in_namespace
async def test_changes_are_told_once_for_many():
    async with Netlink() as netlink:
        first, second = netlink.changes(), netlink.changes()
        assert not first.is_set()
        ip("link", "set", "lo", "up")
        await asyncio.wait_for(asyncio.gather(first.wait(), second.wait()), 1)
        first.clear()
        for number in range(20):
            ip("addr", "add", f"192.0.2.{number}/32", "dev", "lo")
        await asyncio.wait_for(first.wait(), 1)


@in_namespace
async def test_an_overflow_counts_as_a_change_and_is_survived(tmp_path):
    ip("link", "set", "lo", "up")
    batch = tmp_path / "batch"
    batch.write_text("".join(f"route add 172.16.{i // 256}.{i % 256}/32 dev lo\n" for i in range(5000)))
    async with Netlink() as netlink:
        changed = netlink.changes()
        asleep = asyncio.create_task(netlink.call(hold))
        await until(held.is_set)
        ip("-batch", batch)  # while the thread cannot read: some 700 KB against a buffer of 200 KB
        release.set()
        await asleep
        await asyncio.wait_for(changed.wait(), 1)
        await asyncio.sleep(4 * SETTLE_S)
        changed.clear()
        ip("link", "add", "br0", "type", "bridge")
        await asyncio.wait_for(changed.wait(), 1)


held, release = threading.Event(), threading.Event()


async def hold(_):
    held.set()
    release.wait(20)


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
        assert time.monotonic() - began < 1
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
        assert await asyncio.wait_for(read_links(netlink), 1)


@in_namespace
async def test_the_kernels_refusal_becomes_one_line():
    async def add(api):
        with failing("add a route"):
            await api.route("add", dst="10.9.0.0/16", gateway="192.0.2.1")

    async with Netlink() as netlink:
        with pytest.raises(HostError, match=r"^cannot add a route: Network is unreachable \(.+\)$"):
            await netlink.call(add)


# Interfaces


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
            mine = {"127.0.0.1", "192.0.2.10", "198.51.100.7", "10.5.3.0"}
            assert {str(address) for address in await local_addresses(netlink)} == mine


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
