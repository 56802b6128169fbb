"""The vxlan backend alone in a namespace: many peers, removal, and devices that others meddle with."""

import asyncio
import time

import pytest
from inside import in_namespace, ip, until
from vxlan_alone import HELD, A, bridge, lease, make, neighbours, routes, started, underlay

from udpbackend.errors import HostError
from udpbackend.host import vxlan_link
from udpbackend.host.netlink import Netlink
from udpbackend.model import Snapshot

MANY = 5000
MANY_S = 10.0
"""Measured are 0.8 s on an idle machine."""


@in_namespace
async def test_many_peers_come_and_go_in_seconds():
    underlay()
    leases = tuple(lease(number) for number in range(0x1000, 0x1000 + MANY))
    async with Netlink() as netlink:
        backend, _ = await started(netlink, network="10.0.0.0/8")
        for peers in (leases, leases[: MANY // 2], (), leases):
            began = time.monotonic()
            await backend.apply(Snapshot((HELD, *peers), 2))
            assert time.monotonic() - began < MANY_S
            assert (await backend.facts()).routes == len(peers)
            assert len(routes()) == len(neighbours()) == bridge().count("permanent") == len(peers)
        ip("link", "delete", "flannel.1")
        began = time.monotonic()
        await backend.apply(Snapshot((HELD, *leases), 3))
        assert time.monotonic() - began < MANY_S
        assert len(routes()) == MANY


@in_namespace
async def test_changes_that_come_together_are_followed_together(monkeypatch):
    underlay()
    async with Netlink() as netlink:
        backend, _ = await started(netlink)
        looks = 0
        look = backend._keeper._look

        async def counted():
            nonlocal looks
            looks += 1
            return await look()

        monkeypatch.setattr(backend._keeper, "_look", counted)
        await asyncio.gather(*(backend.apply(Snapshot((HELD, lease(A + number)), number)) for number in range(20)))
        assert looks <= 2
        assert routes() == {"10.5.21.0/24"}


@in_namespace
async def test_removal_leaves_nothing_of_ours_and_all_of_others():
    underlay()
    ip("route", "add", "10.6.0.0/16", "dev", "eth0", "proto", "117")
    async with Netlink() as netlink:
        backend, _ = await started(netlink, lease(A), options=', "DirectRouting": true')
        assert routes() == {"10.5.2.0/24", "10.6.0.0/16"}
        await backend.stop()
        await backend.remove()
        assert routes() == {"10.6.0.0/16"}
        assert ip("link", "show", "type", "vxlan") == ""
        await backend.remove()


@in_namespace
async def test_undoing_a_start_spares_a_device_that_was_there():
    underlay()
    async with Netlink() as netlink:
        backend, _ = await started(netlink, lease(A))
        again, _ = await started(netlink, lease(A))
        await again.undo()
        assert routes() == {"10.5.2.0/24"}
        await backend.undo()
        assert ip("link", "show", "type", "vxlan") == ""


@in_namespace
async def test_a_mac_that_is_changed_at_once_is_an_error(monkeypatch):
    """As systemd-udevd does: the second look at the device shows another MAC than was set."""
    underlay()
    real = vxlan_link._mend

    async def mend(ip_, vtep, link, *, tidy):
        async for what in real(ip_, vtep, link, tidy=tidy):
            yield what
        ip("link", "set", "flannel.1", "address", "02:00:00:00:00:13")

    monkeypatch.setattr(vxlan_link, "_mend", mend)
    async with Netlink() as netlink:
        backend = make(netlink)
        await backend.prepare(HELD)
        with pytest.raises(
            HostError, match=r"flannel.1 does not keep the MAC address 02:aa:bb:cc:dd:01: another program"
        ):
            await backend.start(HELD, Snapshot((HELD,), 1))
        await backend.undo()
    assert ip("link", "show", "type", "vxlan") == ""


@in_namespace
async def test_another_vxlan_with_our_number_is_named():
    underlay()
    ip(
        "link",
        "add",
        "other",
        "type",
        "vxlan",
        "id",
        1,
        "dstport",
        8472,
        "local",
        "192.0.2.1",
        "dev",
        "eth0",
        "nolearning",
    )
    async with Netlink() as netlink:
        backend = make(netlink)
        await backend.prepare(HELD)
        with pytest.raises(HostError, match=r"cannot make flannel.1: File exists .*VNI"):
            await backend.start(HELD, Snapshot((HELD,), 1))
        await backend.undo()


@in_namespace
async def test_repairs_run_by_themselves_and_cost_little():
    underlay()
    async with Netlink() as netlink:
        backend, _ = await started(netlink, lease(A))
        running = asyncio.create_task(backend.run())
        for damage in (("link", "delete", "flannel.1"), ("neigh", "flush", "dev", "flannel.1", "nud", "permanent")):
            ip(*damage)
            await until(_whole, 5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _whole():
    return bool(ip("-j", "link", "show", "type", "vxlan")) and bool(neighbours()) and bool(routes())
