"""The choice of interface and address: flannel's rules as a table, and its error texts."""

import logging
from ipaddress import IPv4Address, IPv6Address

import pytest

from udpbackend.errors import HostError
from udpbackend.host import mark
from udpbackend.host.interface import Address, Link, Ways, choose
from udpbackend.settings import Settings


def address(text, **marks):
    return Address(IPv4Address(text), **marks)


LO = Link("lo", 1, 65536, (address("127.0.0.1"),), loopback=True)
ETH0 = Link("eth0", 2, 1500, (address("192.0.2.10"), address("192.0.2.11", temporary=True)))
ETH1 = Link("eth1", 3, 9000, (address("198.51.100.7"),))
BARE = Link("bare0", 4, 1500)
LINKS = (LO, ETH0, ETH1, BARE)
WAYS = Ways(default=2)

NONE_VALID = "Failed to find any valid interface to use"
NONE_MATCHES = "Failed to find interface to use that matches the interfaces and/or regexes provided"


def chosen(links=LINKS, ways=WAYS, **flags):
    endpoint = choose(Settings(**flags), links, ways)
    return endpoint.interface, str(endpoint.address), str(endpoint.public_ip)


def test_without_flags_the_default_route_decides():
    endpoint = choose(Settings(), LINKS, WAYS)
    assert (endpoint.interface, endpoint.index, endpoint.mtu) == ("eth0", 2, 1500)
    assert endpoint.address == endpoint.public_ip == IPv4Address("192.0.2.10")


def test_public_ip_alone_names_its_interface():
    assert chosen(public_ip=IPv4Address("198.51.100.7")) == ("eth1", "198.51.100.7", "198.51.100.7")


def test_public_ip_beside_an_interface_may_be_any_address():
    found = chosen(iface=("eth1",), public_ip=IPv4Address("203.0.113.1"))
    assert found == ("eth1", "198.51.100.7", "203.0.113.1")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"iface": ("eth1",)}, ("eth1", "198.51.100.7")),
        ({"iface": ("192.0.2.11",)}, ("eth0", "192.0.2.11")),
        ({"iface": ("127.0.0.1",)}, ("lo", "127.0.0.1")),
        ({"iface": ("eth9", "203.0.113.9", "eth1", "eth0")}, ("eth1", "198.51.100.7")),
        ({"iface": ("bare0", "eth0")}, ("eth0", "192.0.2.10")),
        ({"iface": ("eth0",), "iface_regex": ("eth1",)}, ("eth0", "192.0.2.10")),
        ({"iface": ("eth9",), "iface_regex": ("eth1",)}, ("eth1", "198.51.100.7")),
        ({"iface_regex": ("100",)}, ("eth1", "198.51.100.7")),
        ({"iface_regex": (r"\.11$",)}, ("eth0", "192.0.2.11")),
        ({"iface_regex": ("th[1-9]",)}, ("eth1", "198.51.100.7")),
        ({"iface_regex": ("nothing", "^eth0$")}, ("eth0", "192.0.2.10")),
        ({"iface_regex": ("(",), "iface_can_reach": IPv4Address("198.51.100.1")}, ("eth1", "198.51.100.8")),
    ],
)
def test_flags_are_tried_in_order(flags, expected):
    ways = Ways(reach=3, reach_source=IPv4Address("198.51.100.8"))
    assert chosen(ways=ways, **flags)[:2] == expected


def test_addresses_are_matched_before_names():
    named_like_an_address = Link("br192", 1, 1500, (address("203.0.113.5"),))
    assert chosen(links=(named_like_an_address, ETH0), iface_regex=("192",))[0] == "eth0"


def test_can_reach_takes_the_interface_and_source_of_the_route():
    ways = Ways(reach=3, reach_source=IPv4Address("198.51.100.7"))
    assert chosen(ways=ways, iface_can_reach=IPv4Address("198.51.100.9")) == ("eth1", *["198.51.100.7"] * 2)


def test_can_reach_of_this_very_host_takes_the_interface_that_has_the_address():
    ways = Ways(reach=1, reach_source=IPv4Address("198.51.100.7"))
    assert chosen(ways=ways, iface_can_reach=IPv4Address("198.51.100.7"))[0] == "eth1"


def test_can_reach_without_a_source_takes_the_first_address():
    assert chosen(ways=Ways(reach=2), iface_can_reach=IPv4Address("203.0.113.9"))[1] == "192.0.2.10"


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ((address("169.254.1.1"), address("192.0.2.1")), "192.0.2.1"),
        ((address("169.254.1.1"),), "169.254.1.1"),
        ((address("192.0.2.1", dynamic=True), address("192.0.2.2")), "192.0.2.2"),
        ((address("192.0.2.1", temporary=True), address("192.0.2.2")), "192.0.2.2"),
        ((address("192.0.2.1", deprecated=True), address("169.254.1.1")), "169.254.1.1"),
        ((address("169.254.1.1"), address("192.0.2.1", dynamic=True, temporary=True)), "192.0.2.1"),
        ((address("192.0.2.1", temporary=True), address("192.0.2.2", dynamic=True)), "192.0.2.1"),
        ((address("192.0.2.2"), address("192.0.2.1")), "192.0.2.2"),
    ],
)
def test_the_best_address_of_a_link(addresses, expected):
    link = Link("eth0", 2, 1500, addresses)
    assert chosen(links=(link,), iface=("eth0",))[1] == expected


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            {"public_ip": IPv4Address("203.0.113.1")},
            f"{NONE_VALID}: error looking up interface 203.0.113.1: no interface with given IP found",
        ),
        ({"iface": ("eth9",)}, f"{NONE_MATCHES}: error looking up interface eth9: no such network interface"),
        ({"iface": ("bare0",)}, "failed to find IPv4 address for interface bare0"),
        ({"iface": ("fd00::1",)}, "error looking up interface fd00::1: no interface with given IP found"),
        ({"iface_regex": ("wlan",)}, "Could not match pattern wlan to any of the available network interfaces"),
        ({"iface_regex": ("(",)}, "could not compile the IP address regex '('"),
        (
            {"iface_can_reach": IPv4Address("203.0.113.9")},
            "failed to get ifcanreach based interface: couldn't lookup route to 203.0.113.9: Network is unreachable",
        ),
    ],
)
def test_what_cannot_be_met_is_named_with_what_there_is(flags, text):
    with pytest.raises(HostError) as caught:
        chosen(ways=Ways(default=2, reach_error="Network is unreachable"), **flags)
    assert text in str(caught.value)
    assert "this host has lo [127.0.0.1], eth0 [192.0.2.10 192.0.2.11], eth1 [198.51.100.7], bare0 []" in str(
        caught.value
    )


def ipv6(text, **marks):
    return Address(IPv6Address(text), **marks)


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ((), None),
        ((ipv6("fe80::1"),), None),
        ((ipv6("fe80::1"), ipv6("2001:db8::1"), ipv6("2001:db8::2")), "2001:db8::1"),
        ((ipv6("fd00::1"),), "fd00::1"),
        ((ipv6("2001:db8::1", dynamic=True), ipv6("fd00::1")), "fd00::1"),
        ((ipv6("2001:db8::1", dynamic=True, temporary=True), ipv6("2001:db8::2", dynamic=True)), "2001:db8::2"),
        ((ipv6("2001:db8::1", deprecated=True),), None),
        ((ipv6("::1"), ipv6("ff02::1")), None),
    ],
)
def test_the_public_ipv6_is_the_best_of_the_chosen_interface(addresses, expected):
    other = Link("eth1", 3, 1500, (address("198.51.100.7"),), ipv6=(ipv6("2001:db8:1::1"),))
    link = Link("eth0", 2, 1500, (address("192.0.2.1"),), ipv6=addresses)
    found = choose(Settings(iface=("eth0",)), (other, link), WAYS).public_ipv6
    assert found == (expected and IPv6Address(expected))


def test_class_e_is_an_address_like_any_other():
    link = Link("eth0", 2, 1500, (address("255.255.255.255"), address("224.0.0.1"), address("240.1.2.3")))
    assert str(choose(Settings(iface=("eth0",)), (link,), WAYS).address) == "240.1.2.3"


def test_a_public_ipv6_that_was_given_is_taken_as_it_is():
    given = IPv6Address("2001:db8::99")
    assert choose(Settings(iface=("eth0",), public_ipv6=given), LINKS, WAYS).public_ipv6 == given


@pytest.mark.parametrize(
    ("name", "ours"),
    [("flannel0", True), ("flannel.1", True), ("flannel-v6.4096", True), ("flannel1", True), ("flannel-wg", True),
     ("flannel.ipip", True), ("eth0", False), ("eth0.flannel", False)],
)  # fmt: skip
def test_devices_of_an_overlay_are_known_by_their_names(name, ours):
    assert mark.overlays(name) is ours


def test_without_a_default_route():
    with pytest.raises(HostError, match=r"failed to get default interface: unable to find default route; this host"):
        chosen(ways=Ways())


def test_every_miss_is_named_and_logged(caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(HostError, match=r"eth8.*wlan"):
        chosen(iface=("eth8",), iface_regex=("wlan",))
    assert "Could not find valid interface matching eth8" in caplog.text


def test_an_interface_without_mtu_is_refused():
    with pytest.raises(HostError, match=r"failed to determine MTU for 192\.0\.2\.1 interface eth0"):
        chosen(links=(Link("eth0", 2, 0, (address("192.0.2.1"),)),), iface=("eth0",))
