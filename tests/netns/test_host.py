"""flannel0 on a real kernel: made, taken over, and told from what is not ours; each test in a namespace of its own."""

import fcntl
import os
import select
import struct
from ipaddress import IPv4Address

import pytest
import pytun
from announced import carrier, listen, told
from flannel0_facts import NETWORK, OVERLAY, ROUTE, addresses, routes, set_sysctl, sysctl
from inside import in_namespace, ip

from udpbackend.dataplane import tun
from udpbackend.dataplane.tun import open_tun
from udpbackend.errors import HostError
from udpbackend.host.flannel0 import OverlayLink, Presence
from udpbackend.host.mark import ALIAS
from udpbackend.host.netlink import Netlink
from udpbackend.host.overlay_plan import Overlay
from udpbackend.model import Prefix

TUNGETIFF = 0x800454D2
TUNSETIFF = 0x400454CA


@in_namespace
async def test_a_new_device_is_what_flannel_makes_and_a_little_more():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        assert (await link.inspect()).presence is Presence.ABSENT
        with open_tun("flannel0", new=True) as queue:
            assert (await link.inspect()).presence is Presence.FOREIGN, "not marked yet"
            assert len(await link.configure(OVERLAY)) == 8
            queue.persist()

            [shown] = ip("-j", "-d", "link", "show", "flannel0")
            assert (shown["ifalias"], shown["mtu"], shown["inet6_addr_gen_mode"]) == (ALIAS, 1472, "none")
            assert ("UP" in shown["flags"], shown["txqlen"]) == (True, 2000)
            assert addresses() == [("10.5.3.0", 32, "global")]
            assert routes() == [ROUTE]
            assert sysctl("ipv4/conf/flannel0/accept_local") == "1"

            state = await link.inspect()
            assert (state.presence, state.index, state.mtu, state.up, state.queues) == (
                *(Presence.IN_USE, shown["ifindex"]),
                *(1472, True, 1),
            )
            assert await link.problems() == ()
            ip("link", "set", "flannel0", "txqueuelen", "500")
            assert await link.configure(OVERLAY) == (), "a length that somebody has set stays"
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
def test_another_user_cannot_attach_to_it():
    """To a persistent device without an owner the kernel lets every user who can open /dev/net/tun."""
    with open_tun("flannel0", new=True) as queue:
        queue.persist()
    with open(tun.DEVICE, "r+b", buffering=0) as another:  # noqa: PTH123 a Path opens with a buffer
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                fcntl.ioctl(another, TUNSETIFF, struct.pack("16sH22x", b"flannel0", tun.FLAGS))
        finally:
            os.seteuid(0)


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


@in_namespace
async def test_taking_over_changes_nothing():
    async with Netlink() as netlink:
        with open_tun("flannel0", new=True) as queue:
            await OverlayLink(netlink).configure(OVERLAY)
            queue.persist()
        await carrier("DOWN")
        before = ip("-j", "-d", "link", "show", "flannel0")[0]["ifindex"]
        link = OverlayLink(netlink)
        assert (await link.inspect()).presence is Presence.OURS
        with open_tun("flannel0"), listen() as changes:
            await carrier("UP")
            told(changes)
            assert await link.configure(OVERLAY) == ()
            assert told(changes) == 0
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
