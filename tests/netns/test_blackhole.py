"""Blackhole routes beside a real bridge; each test in a namespace of its own."""

import codecs
import os
import subprocess

import pytest
from announced import listen, told
from flannel0_facts import set_sysctl
from inside import in_namespace, ip

from udpbackend.errors import HostError
from udpbackend.host.blackhole import Blackhole
from udpbackend.host.netlink import Netlink
from udpbackend.model import Prefix

SUBNET, SUBNET6 = Prefix.parse("10.5.3.0/24"), Prefix.parse("fd00:5:0:3::/64")
BOTH = (SUBNET, SUBNET6)
EARLIER = Prefix.parse("10.5.9.0/24")
ROUTE = "blackhole 10.5.3.0/24 proto 117 metric 4294967295"
ROUTE6 = "blackhole fd00:5:0:3::/64 dev lo proto 117 metric 4294967295 pref medium"
ADDED = (
    "added the route blackhole 10.5.3.0/24 metric 4294967295",
    "added the route blackhole fd00:5:0:3::/64 metric 4294967295",
)
NOBODY = 65534


def blackholes():
    return [
        line.strip() for family in "46" for line in ip(f"-{family}", "route", "show", "type", "blackhole").splitlines()
    ]


def bridge():
    ip("link", "add", "cni0", "type", "bridge")
    ip("link", "set", "cni0", "up")
    ip("addr", "add", "10.5.3.1/24", "dev", "cni0")
    ip("addr", "add", "fd00:5:0:3::1/64", "dev", "cni0", "nodad")


def way(address):
    """The device that a packet to the address takes; "" where it is dropped."""
    done = subprocess.run(["ip", "-o", "route", "get", address], capture_output=True, text=True, check=False)
    if done.returncode:
        assert "Invalid argument" in done.stderr, "that is how a blackhole answers"
        return ""
    return done.stdout.partition(" dev ")[2].split()[0]


def ways():
    return {way("10.5.3.77"), way("fd00:5:0:3::77")}


@pytest.mark.parametrize("first", ["the bridge", "the route"])
@in_namespace
async def test_the_bridges_own_route_wins_whichever_comes_first(first):
    ip("link", "add", "flannel0", "type", "bridge")
    ip("link", "set", "flannel0", "up")
    ip("route", "add", "10.5.0.0/16", "dev", "flannel0")
    ip("route", "add", "fd00:5::/48", "dev", "flannel0")
    async with Netlink() as netlink:
        blackhole = Blackhole(netlink, BOTH)
        if first == "the bridge":
            bridge()
        else:
            assert ways() == {"flannel0"}
            assert await blackhole.ensure() == ADDED
            assert ways() == {""}
            bridge()
        assert await blackhole.ensure() == (ADDED if first == "the bridge" else ())
        assert blackholes() == [ROUTE, ROUTE6]
        assert ways() == {"cni0"}
        ip("link", "delete", "cni0")
        assert ways() == {""}
        assert way("10.5.4.1") == "flannel0"


@in_namespace
async def test_flannels_own_shadows_the_bridge_and_is_replaced():
    for subnet in (*BOTH, EARLIER):
        ip("route", "add", "blackhole", subnet)
    bridge()
    assert way("10.5.3.77") == "", "what we must not do: the kernel puts the bridge's route behind it"
    async with Netlink() as netlink:
        done = await Blackhole(netlink, BOTH, previous=[EARLIER]).ensure()
        assert done == (
            *ADDED,
            "removed the route blackhole 10.5.3.0/24 metric 0",
            "removed the route blackhole 10.5.9.0/24 metric 0",
            "removed the route blackhole fd00:5:0:3::/64 metric 1024",
        )
    assert blackholes() == [ROUTE, ROUTE6]
    assert ways() == {"cni0"}


@in_namespace
async def test_what_is_missing_comes_back_and_nothing_is_written_otherwise():
    async with Netlink() as netlink:
        blackhole = Blackhole(netlink, BOTH)
        await blackhole.ensure()
        with listen() as changes:
            assert await blackhole.ensure() == ()
            assert told(changes) == 0
        ip("route", "delete", "blackhole", SUBNET)
        assert await blackhole.ensure() == ADDED[:1]
        assert blackholes() == [ROUTE, ROUTE6]


@in_namespace
async def test_an_earlier_subnets_route_goes_and_other_peoples_stay():
    bridge()
    for destination in ("10.5.0.0/16", "10.44.0.0/16", "fd00:99::/48"):
        ip("route", "add", "blackhole", destination)
    ip("route", "add", "blackhole", SUBNET, "metric", "7", "proto", "static")
    ip("-6", "route", "add", SUBNET6, "dev", "cni0", "metric", "1024")
    ip("-6", "route", "append", "blackhole", SUBNET6)
    async with Netlink() as netlink:
        assert len(await Blackhole(netlink, [EARLIER]).ensure()) == 1
        assert await Blackhole(netlink, BOTH).ensure() == (
            *ADDED,
            "removed the route blackhole 10.5.9.0/24 metric 4294967295",
            "removed the route blackhole fd00:5:0:3::/64 metric 1024",
        )
        nobodys = Blackhole(netlink, ())
        assert await nobodys.leftovers() == tuple(words.removeprefix("added the route ") for words in ADDED)
        found = await nobodys.leftovers()
        assert await nobodys.remove() == found
        assert await nobodys.remove() == await nobodys.leftovers() == ()
    assert blackholes() == [
        "blackhole 10.5.0.0/16",
        "blackhole 10.5.3.0/24 proto static metric 7",
        "blackhole 10.44.0.0/16",
        "blackhole fd00:99::/48 dev lo metric 1024 pref medium",
    ]
    assert "fd00:5:0:3::/64 dev cni0 metric 1024 pref medium" in ip("-6", "route")


@in_namespace
async def test_a_failed_start_takes_back_what_it_has_added():
    async with Netlink() as netlink:
        await Blackhole(netlink, [SUBNET]).ensure()
        blackhole = Blackhole(netlink, BOTH)
        assert await blackhole.ensure() == ADDED[1:]
        await blackhole.undo()
        await blackhole.undo()
        assert blackholes() == [ROUTE]


@in_namespace
async def test_it_works_where_ipv6_is_off_and_where_there_is_no_route_at_all():
    set_sysctl("ipv6/conf/all/disable_ipv6", "1")
    async with Netlink() as netlink:
        blackhole = Blackhole(netlink, [SUBNET])
        assert await blackhole.leftovers() == ()
        assert await blackhole.ensure() == ADDED[:1]
        assert await blackhole.remove() == ("blackhole 10.5.3.0/24 metric 4294967295",)


@in_namespace
async def test_the_missing_capability_is_named():
    codecs.lookup("ascii")  # nobody cannot read the library it would be loaded from
    os.setuid(NOBODY)
    async with Netlink() as netlink:
        with pytest.raises(HostError, match=r"^cannot add the route blackhole 10.5.3.0/24 .*NET_ADMIN is needed"):
            await Blackhole(netlink, [SUBNET]).ensure()
