"""flannel0 on a real kernel: mended, removed, and who may touch it; each test in a namespace of its own."""

import asyncio
import codecs
import errno
import os
from pathlib import Path

import pytest
from flannel0_facts import OVERLAY, ROUTE, addresses, routes, set_sysctl
from inside import SOON_S, in_namespace, ip

from udpbackend.dataplane import tun
from udpbackend.dataplane.tun import check_tun_access, open_tun
from udpbackend.errors import HostError
from udpbackend.host.flannel0 import OverlayLink, Presence
from udpbackend.host.netlink import SETTLE_S, Netlink

NOBODY = 65534


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
            await asyncio.wait_for(changed.wait(), SOON_S)
            repair = await link.ensure()
            assert repair.done == ()
            assert repair.left == ("flannel0 is down: ip link set flannel0 up brings it back, its routes follow",)
            assert routes() == []
            await asyncio.sleep(2 * SETTLE_S)
            changed.clear()
            ip("link", "set", "flannel0", "up")
            await asyncio.wait_for(changed.wait(), SOON_S)
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
async def test_what_is_gone_before_it_is_mended_is_told_once(monkeypatch):
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        with open_tun("flannel0"):
            await link.configure(OVERLAY)
            ip("route", "delete", "10.5.0.0/16")
            cure = OverlayLink._cure

            async def late(self, rtnetlink, step):
                ip("link", "delete", "flannel0")
                await cure(self, rtnetlink, step)

            monkeypatch.setattr(OverlayLink, "_cure", late)
            repair = await link.ensure()
            assert repair.left == ("cannot mend that the route 10.5.0.0/16 dev flannel0 is missing: No such device",)


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
