"""What the daemon and the doctor both find wrong with a host, from what was read of it."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from udpbackend.findings import address, forwarding, mtu, routes
from udpbackend.findings.here import Here
from udpbackend.host.route_table import TableRoute
from udpbackend.host.rtnetlink import PROTO_BOOT, PROTO_KERNEL
from udpbackend.model import Prefix

ADDRESS, OTHER = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.7")
HERE = Here(
    network=Prefix.parse("10.5.0.0/16"),
    subnet=Prefix.parse("10.5.1.0/24"),
    interface="eth0",
    address=ADDRESS,
    public_ip=ADDRESS,
    port=8285,
    overlay="flannel0",
    overlay_mtu=1472,
    overhead=28,
)
NAMES = {1: "eth0", 2: "cni0", 3: "flannel0", 4: "docker0"}


def route(destination, link, protocol=PROTO_BOOT, *, gateway=False, metric=0):
    return TableRoute(Prefix.parse(destination), link, gateway, protocol, metric)


USUAL = [
    route("0.0.0.0/0", 1, gateway=True),
    route("192.0.2.0/24", 1, PROTO_KERNEL),
    route("10.5.0.0/16", 3),
    route("10.5.1.0/24", 2, PROTO_KERNEL),
    route("10.5.1.7/32", 4),
]
"""With a route to a pod by a link of its own, as some plugins make them."""


class TestAddress:
    def test_what_is_well(self):
        assert address.judge(HERE, {ADDRESS}) == []
        assert address.judge(replace(HERE, public_ip=IPv4Address("203.0.113.7")), {ADDRESS}) == []

    def test_one_that_is_gone(self):
        (finding,) = address.judge(HERE, {OTHER})
        assert (finding.severity, finding.what) == (
            "down",
            "this node is known by 192.0.2.1, which no interface of it has any longer",
        )
        assert finding.evidence.startswith("this host has 192.0.2.7;")

    def test_one_of_this_host_that_is_not_the_sockets(self):
        (finding,) = address.judge(replace(HERE, public_ip=OTHER), {ADDRESS, OTHER})
        assert (finding.severity, finding.what) == (
            "down",
            "this node is known by 192.0.2.7, but the socket is bound to 192.0.2.1",
        )
        assert address.judge(replace(HERE, public_ip=OTHER, port=None), {ADDRESS, OTHER}) == []


class TestRoutes:
    def test_what_is_well(self):
        assert routes.astray(HERE, USUAL, NAMES) == []
        assert routes.into(HERE, USUAL, NAMES, [OTHER]) == []

    @pytest.mark.parametrize(
        ("more", "what", "evidence"),
        [
            (route("10.5.2.0/24", 1, gateway=True), "other nodes' pods", "10.5.2.0/24 dev eth0"),
            (route("10.5.0.0/17", 4, PROTO_KERNEL), "other nodes' pods", "10.5.0.0/17 dev docker0"),
            (route("10.5.3.0/24", 0), "other nodes' pods", "10.5.3.0/24 dev none (blackhole, unreachable, or several)"),
            (route("10.5.1.0/25", 1), "this node's own pods", "10.5.1.0/25 dev eth0"),
            (route("10.5.1.9/32", 4, gateway=True), "this node's own pods", "10.5.1.9/32 dev docker0"),
        ],
    )
    def test_astray(self, more, what, evidence):
        (finding,) = routes.astray(HERE, [*USUAL, more], NAMES)
        assert what in finding.what
        assert finding.evidence == evidence

    def test_the_kernels_own_of_a_bridge_goes_with_its_address(self):
        """Told as a bridge of another network, with another cure."""
        assert routes.astray(HERE, [*USUAL, route("10.5.9.0/24", 2, PROTO_KERNEL)], NAMES) == []
        assert len(routes.astray(HERE, [*USUAL, route("10.5.9.0/24", 2)], NAMES)) == 1

    def test_a_backend_without_a_device_leads_straight_to_the_nodes(self):
        assert routes.astray(replace(HERE, overlay=None), [*USUAL, route("10.5.2.0/24", 1)], NAMES) == []

    def test_peers_that_are_led_into_the_overlay(self):
        halves = [route("0.0.0.0/1", 3), route("128.0.0.0/1", 3)]
        (finding,) = routes.into(HERE, [*USUAL, *halves], NAMES, [OTHER, IPv4Address("198.51.100.1")])
        assert (finding.severity, finding.evidence) == ("down", "198.51.100.1")
        assert finding.what == "datagrams to 1 peer go back into flannel0, for ever"

    def test_others_that_are_led_into_the_overlay(self):
        (finding,) = routes.into(HERE, [*USUAL, route("0.0.0.0/0", 3, metric=5)], NAMES, [OTHER])
        assert (finding.severity, finding.evidence) == ("part", "0.0.0.0/0 dev flannel0")


class TestMtu:
    def test_it_fits_or_not(self):
        assert mtu.judge(HERE, 1500) == mtu.judge(HERE, 9000) == []
        (finding,) = mtu.judge(HERE, 1400)
        assert finding.evidence == "eth0 has an MTU of 1400, which leaves 1372, and pods have 1472"
        assert finding.cure.startswith("ip link set eth0 mtu 1500")


class TestForwarding:
    def test_the_words(self):
        assert forwarding.finding("ipv6/conf/all/forwarding").what.endswith("the packets of IPv6")
        assert forwarding.finding("ipv4/conf/flannel0/forwarding").what.endswith("the packets of flannel0")
