"""What must change on flannel0, from what is seen to what is wanted; and the reading of the routing table."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from udpbackend.host.mark import ALIAS
from udpbackend.host.overlay_plan import Held, Kind, Overlay, Route, Seen, plan
from udpbackend.host.rtnetlink import MainRoute, attribute, main_routes_to
from udpbackend.model import Prefix

BASE = IPv4Address("10.5.3.0")
NETWORK = Prefix.parse("10.5.0.0/16")
WANTED = Overlay(BASE, NETWORK, 1472)
OURS = Held(BASE, BASE, 32)
LEADS = Route(NETWORK, protocol=3, metric=0)
RIGHT = Seen(ALIAS, 1472, up=True, accept_local=True, ipv6_address_mode=1, addresses=(OURS,), routes=(LEADS,))


BASE6 = IPv6Address("fd00:5:0:3::")
NETWORK6 = Prefix.parse("fd00:5::/48")
WANTED6 = replace(WANTED, address6=BASE6, network6=NETWORK6)
OURS6 = Held(BASE6, BASE6, 128)
LEADS6 = Route(NETWORK6, protocol=3, metric=1024)
KERNELS6 = Route(Prefix.parse("fd00:5:0:3::/128"), protocol=2, metric=256)
RIGHT6 = replace(RIGHT, addresses=(OURS, OURS6), routes=(LEADS, KERNELS6, LEADS6))


def steps(seen, wanted=WANTED):
    return [(step.kind, step.problem) for step in plan("flannel0", seen, wanted)]


def test_nothing_differs():
    assert steps(RIGHT) == []
    assert steps(replace(RIGHT, ipv6_address_mode=None)) == []


def test_a_fresh_device_gets_everything_in_order():
    fresh = Seen("", 1500, up=False, accept_local=False, ipv6_address_mode=0)
    assert steps(fresh) == [
        (Kind.SETTING, "flannel0 does not have our alias"),
        (Kind.SETTING, "accept_local of flannel0 is off"),
        (Kind.SETTING, "flannel0 makes itself an IPv6 link-local address"),
        (Kind.SETTING, "flannel0 has the MTU 1500 instead of 1472"),
        (Kind.SETTING, "flannel0 lacks its address 10.5.3.0/32"),
        (Kind.ADMIN, "flannel0 is down"),
        (Kind.ROUTE, "the route 10.5.0.0/16 dev flannel0 is missing"),
    ]


def test_a_new_devices_queue_is_made_longer_and_no_other():
    problem = "the queue of flannel0 holds 500 packets, not 2000"
    assert (Kind.SETTING, problem) in steps(replace(RIGHT, alias="", queue=500))
    assert steps(replace(RIGHT, alias="", queue=100)) == [(Kind.SETTING, "flannel0 does not have our alias")]
    assert steps(replace(RIGHT, queue=500)) == []


def test_the_new_address_comes_before_the_old_one_goes():
    old = Held(IPv4Address("10.5.9.0"), IPv4Address("10.5.9.0"), 32)
    assert steps(replace(RIGHT, addresses=(old,))) == [
        (Kind.SETTING, "flannel0 lacks its address 10.5.3.0/32"),
        (Kind.TIDY, "flannel0 has the address 10.5.9.0/32 of an earlier configuration"),
    ]


def test_only_our_own_old_routes_go():
    old, kernels, admins = (Route(Prefix.parse(f"10.{i}.0.0/16"), i, 0) for i in (3, 2, 4))
    assert steps(replace(RIGHT, routes=(LEADS, old, kernels, admins))) == [
        (Kind.TIDY, "the route 10.3.0.0/16 dev flannel0 is of an earlier configuration")
    ]


@pytest.mark.parametrize(
    "route",
    [
        replace(LEADS, metric=100),
        replace(LEADS, type=7),
        replace(LEADS, protocol=2),
        replace(LEADS, destination=Prefix.parse("10.5.0.0/24"), protocol=4),
    ],
)
def test_another_route_does_not_stand_in_for_ours(route):
    assert steps(replace(RIGHT, routes=(route,))) == [(Kind.ROUTE, "the route 10.5.0.0/16 dev flannel0 is missing")]


def test_a_route_the_administrator_made_instead_will_do():
    assert steps(replace(RIGHT, routes=(replace(LEADS, protocol=4),))) == []


def test_ipv6_that_is_right():
    assert steps(RIGHT6, WANTED6) == []


def test_a_fresh_device_gets_ipv6_beside_ipv4():
    fresh = Seen("", 1500, up=False, accept_local=False, ipv6_address_mode=0)
    assert steps(fresh, WANTED6)[-5:] == [
        (Kind.SETTING, "flannel0 lacks its address 10.5.3.0/32"),
        (Kind.SETTING, "flannel0 lacks its address fd00:5:0:3::/128"),
        (Kind.ADMIN, "flannel0 is down"),
        (Kind.ROUTE, "the route 10.5.0.0/16 dev flannel0 is missing"),
        (Kind.ROUTE, "the route fd00:5::/48 dev flannel0 is missing"),
    ]


def test_ipv6_of_an_earlier_configuration_goes():
    gone = [
        (Kind.TIDY, "flannel0 has the address fd00:5:0:3::/128 of an earlier configuration"),
        (Kind.TIDY, "the route fd00:5::/48 dev flannel0 is of an earlier configuration"),
    ]
    assert steps(RIGHT6) == gone
    other = replace(WANTED6, address6=IPv6Address("fd00:6::"), network6=Prefix.parse("fd00:6::/48"))
    lacking = (Kind.SETTING, "flannel0 lacks its address fd00:6::/128")
    missing = (Kind.ROUTE, "the route fd00:6::/48 dev flannel0 is missing")
    assert steps(RIGHT6, other) == [lacking, *gone, missing]


@pytest.mark.parametrize("route", [replace(LEADS6, metric=256), replace(LEADS6, type=7), replace(LEADS6, protocol=2)])
def test_another_ipv6_route_does_not_stand_in_for_ours(route):
    missing = [(Kind.ROUTE, "the route fd00:5::/48 dev flannel0 is missing")]
    assert steps(replace(RIGHT6, routes=(LEADS, route)), WANTED6) == missing


def test_ipv6_that_is_switched_off_is_the_administrators():
    off = replace(RIGHT, ipv6_off=True)
    [step] = plan("flannel0", off, WANTED6)
    assert (step.kind, step.problem, step.cure) == (Kind.ADMIN, "IPv6 is switched off on flannel0", None)
    assert step.advice == "sysctl -w net.ipv6.conf.flannel0.disable_ipv6=0 switches it on"
    assert steps(off) == []


def test_ipv6_comes_back_with_the_mtu():
    small = replace(RIGHT, mtu=1000, ipv6_address_mode=None)
    assert steps(small, WANTED6) == [
        (Kind.SETTING, "flannel0 has the MTU 1000 instead of 1472"),
        (Kind.SETTING, "flannel0 lacks its address fd00:5:0:3::/128"),
        (Kind.ROUTE, "the route fd00:5::/48 dev flannel0 is missing"),
    ]


def test_attributes_are_padded_to_four_bytes():
    assert attribute(8, b"\1") == b"\5\0\x08\0\1\0\0\0"


def test_routes_to_exactly_one_prefix(tmp_path):
    table = tmp_path / "route"
    table.write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth1\t0000050A\t010011AC\t0003\t0\t0\t100\t0000FFFF\t0\t0\t0\n"
        "*\t0000050A\t00000000\t0201\t0\t0\t200\t0000FFFF\t0\t0\t0\n"
        "eth2\t0000050A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "eth3\t0A000000\t0000050A\t0003\t0\t0\t0\t000000FF\t0\t0\t0\n"
    )
    gateway = IPv4Address("172.17.0.1")
    assert list(main_routes_to(Prefix(0, 0), table)) == [MainRoute(Prefix(0, 0), "eth0", gateway, 0)]
    found = list(main_routes_to(NETWORK, table))
    assert found == [MainRoute(NETWORK, "eth1", gateway, 100), MainRoute(NETWORK, "*", None, 200)]
    assert [str(route) for route in found] == [
        "10.5.0.0/16 via 172.17.0.1 dev eth1 metric 100",
        "10.5.0.0/16 to nowhere (blackhole, unreachable) metric 200",
    ]
