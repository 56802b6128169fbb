"""flannel0's IPv6 half on a real kernel: made, taken over, mended, taken away; each test in a namespace of its own."""

import asyncio
import select
from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from announced import carrier, listen, told
from flannel0_facts import OVERLAY, ROUTE, addresses, routes, set_sysctl
from flannel0_facts6 import NETWORK6, OVERLAY6, ROUTE6, addresses6, routes6
from inside import SOON_S, in_namespace, ip, until

from udpbackend.dataplane.tun import open_tun
from udpbackend.errors import HostError
from udpbackend.host.flannel0 import OverlayLink
from udpbackend.host.ipv6 import require_ipv6
from udpbackend.host.netlink import Netlink
from udpbackend.model import Prefix

OFF = "IPv6 is switched off on flannel0: sysctl -w net.ipv6.conf.flannel0.disable_ipv6=0 switches it on"


@in_namespace
async def test_a_new_device_carries_both_and_sends_nothing_of_its_own():
    async with Netlink() as netlink:
        with open_tun("flannel0", new=True) as queue:
            link = OverlayLink(netlink)
            assert len(await link.configure(OVERLAY6)) == 10
            assert (addresses(), routes()) == ([("10.5.3.0", 32, "global")], [ROUTE])
            assert (addresses6(), routes6()) == ([("fd00:5:0:3::", 128)], [ROUTE6])
            assert "tentative" not in ip("-6", "addr", "show", "flannel0")
            assert await link.problems() == ()
            readable, _, _ = select.select([queue.fileno()], [], [], 1.5)
            assert not readable


@in_namespace
async def test_taking_over_changes_nothing():
    async with Netlink() as netlink:
        with open_tun("flannel0", new=True) as queue:
            await OverlayLink(netlink).configure(OVERLAY6)
            queue.persist()
        await carrier("DOWN")
        with open_tun("flannel0"), listen() as changes:
            await carrier("UP")
            told(changes)
            assert await OverlayLink(netlink).configure(OVERLAY6) == ()
            assert told(changes) == 0
            assert (addresses6(), routes6()) == ([("fd00:5:0:3::", 128)], [ROUTE6])


@in_namespace
async def test_another_subnet_and_network_replace_the_old_ones():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"):
            await link.configure(OVERLAY6)
            ip("route", "add", "2001:db8::/32", "dev", "flannel0", "proto", "static")
            ip("addr", "add", "fd00:5:0:3::9/64", "dev", "flannel0", "nodad")
            other = replace(OVERLAY6, address6=IPv6Address("fd00:6:0:1::"), network6=Prefix.parse("fd00:6::/48"))
            assert len(await link.configure(other)) == 5
            assert addresses6() == [("fd00:6:0:1::", 128)]
            assert sorted(routes6()) == [
                "2001:db8::/32 dev flannel0 proto static metric 1024 pref medium",
                "fd00:6::/48 dev flannel0 metric 1024 pref medium",
            ]
            assert await link.problems() == ()


@in_namespace
async def test_without_ipv6_in_the_configuration_its_leftovers_go():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"):
            await link.configure(OVERLAY6)
            assert len(await link.configure(OVERLAY)) == 2
            assert (addresses6(), routes6()) == ([], [])
            assert (addresses(), routes()) == ([("10.5.3.0", 32, "global")], [ROUTE])


@in_namespace
async def test_what_goes_missing_is_put_back():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"):
            await link.configure(OVERLAY6)
            for words in (("route", "del", "fd00:5::/48"), ("addr", "del", "fd00:5:0:3::/128", "dev", "flannel0")):
                changed = netlink.changes()
                ip("-6", *words)
                await asyncio.wait_for(changed.wait(), SOON_S)
            repair = await link.ensure()
            assert (len(repair.done), repair.left) == (2, ())
            assert (addresses6(), routes6()) == ([("fd00:5:0:3::", 128)], [ROUTE6])


@in_namespace
async def test_a_link_that_was_down_gets_back_what_the_kernel_took():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"):
            await link.configure(OVERLAY6)
            ip("link", "set", "flannel0", "down")
            assert (addresses6(), routes6()) == ([], [])
            repair = await link.ensure()
            assert repair.left == ("flannel0 is down: ip link set flannel0 up brings it back, its routes follow",)
            ip("link", "set", "flannel0", "up")
            assert (await link.ensure()).left == ()
            assert (addresses6(), routes6()) == ([("fd00:5:0:3::", 128)], [ROUTE6])


@in_namespace
async def test_an_mtu_that_took_ipv6_away():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"):
            await link.configure(OVERLAY6)
            ip("link", "set", "flannel0", "mtu", 1279)
            assert addresses6() == []
            assert (await link.ensure()).left == ()
            assert ("fd00:5:0:3::", 128) in addresses6()
            assert routes6() == [ROUTE6]
            assert (await link.ensure()).done == ("flannel0 makes itself an IPv6 link-local address",)
            assert await link.problems() == ()


@in_namespace
async def test_ipv6_that_is_switched_off_is_told_and_not_switched_on():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"):
            set_sysctl("ipv6/conf/flannel0/disable_ipv6", "1")
            with pytest.raises(HostError, match=f"^{OFF}$"):
                await link.configure(OVERLAY6)
            assert (addresses(), routes()) == ([], []), "refused before any change"
            await link.configure(OVERLAY)
            set_sysctl("ipv6/conf/flannel0/disable_ipv6", "0")
            await link.configure(OVERLAY6)
            set_sysctl("ipv6/conf/flannel0/disable_ipv6", "1")
            repair = await link.ensure()
            assert (repair.done, repair.left) == ((), (OFF,))
            assert await link.problems() == (OFF,)
            set_sysctl("ipv6/conf/flannel0/disable_ipv6", "0")
            assert (await link.ensure()).left == ()
            assert (addresses6(), routes6()) == ([("fd00:5:0:3::", 128)], [ROUTE6])


@in_namespace
def test_a_host_that_switches_it_off_is_told_before_the_device_is_made():
    require_ipv6("flannel0")
    set_sysctl("ipv6/conf/default/disable_ipv6", "1")
    text = r"IPv6 is switched off for flannel0: sysctl -w net\.ipv6\.conf\.default\.disable_ipv6=0 switches it on, or"
    with pytest.raises(HostError, match=text):
        require_ipv6("flannel0")
    with open_tun("flannel0"):
        set_sysctl("ipv6/conf/flannel0/disable_ipv6", "0")
        require_ipv6("flannel0")
        set_sysctl("ipv6/conf/flannel0/disable_ipv6", "1")
        set_sysctl("ipv6/conf/default/disable_ipv6", "0")
        with pytest.raises(HostError, match=r"net\.ipv6\.conf\.flannel0\.disable_ipv6=0"):
            require_ipv6("flannel0")


def test_a_kernel_without_ipv6(tmp_path):
    with pytest.raises(HostError, match="this host's kernel has no IPv6"):
        require_ipv6("flannel0", tmp_path / "none")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("dev", "br0"), "fd00:5::/48 dev br0 metric 1024"),
        (("dev", "br0", "metric", "7"), "fd00:5::/48 dev br0 metric 7"),
        (("via", "fe80::1", "dev", "br0"), "fd00:5::/48 via fe80::1 dev br0 metric 1024"),
    ],
)
@in_namespace
async def test_another_devices_route_is_never_taken(words, shown):
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "br0", "up")
    ip("-6", "route", "add", "fd00:5::/48", *words)
    async with Netlink() as netlink:
        with open_tun("flannel0"):
            expected = f"^the route {shown} is there already and flannel0 needs .*choose another IPv6Network$"
            with pytest.raises(HostError, match=expected):
                await OverlayLink(netlink).configure(OVERLAY6)
            assert (addresses(), addresses6()) == ([], [])


@in_namespace
async def test_a_route_to_nowhere_is_another_ones_too():
    ip("link", "set", "lo", "up")
    ip("-6", "route", "add", "unreachable", "fd00:5::/48")
    async with Netlink() as netlink:
        with open_tun("flannel0"), pytest.raises(HostError, match="the route fd00:5::/48 dev lo metric 1024 is there"):
            await OverlayLink(netlink).configure(OVERLAY6)


@in_namespace
async def test_routes_of_other_tables_and_other_lengths_are_no_obstacle():
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "br0", "up")
    ip("-6", "route", "add", "fd00:5::/48", "dev", "br0", "table", "77")
    ip("-6", "route", "add", "fd00:5::/47", "dev", "br0")
    ip("-6", "route", "add", "fd00:5::/49", "dev", "br0")
    async with Netlink() as netlink:
        with open_tun("flannel0"):
            await OverlayLink(netlink).configure(OVERLAY6)
            assert ROUTE6 in routes6()


@in_namespace
async def test_it_is_removed_with_all_that_hangs_on_it():
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0") as queue:
            await link.configure(OVERLAY6)
            queue.persist()
        assert await link.remove()
        await until(lambda: routes6() == [])
        assert str(NETWORK6) not in ip("-6", "route", "show", "table", "all")
