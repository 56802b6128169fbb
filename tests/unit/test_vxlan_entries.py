"""Routes, neighbours and forwarding entries: the bytes the kernel is sent and those it sends."""

import struct
from socket import AF_INET, AF_INET6

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from udpbackend.host import entries
from udpbackend.host.entries import Forward, Neighbour, Route, direct_link, read_forward, read_neighbour, read_route
from udpbackend.host.rtnetlink import attribute
from udpbackend.model import Prefix

ADDRESSES = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
MACS = st.binary(min_size=6, max_size=6).filter(any)
LINKS = st.integers(1, 2**31 - 1)
PAIRS = st.sampled_from([4, 16]).flatmap(lambda n: st.tuples(*[st.binary(min_size=n, max_size=n)] * 2))


def decoded(kind, request):
    """What pyroute2 makes of one of our messages."""
    message = kind(with_header(request))
    message.decode()
    return message


def with_header(request):
    return struct.pack("=IHHII", 16 + len(request.body), request.kind, request.flags, 1, 0) + request.body


@given(PAIRS, st.integers(0, 32), LINKS, st.booleans(), st.integers(0, 2**32 - 1))
def test_a_route_comes_back_as_it_was_sent(pair, bits, link, onlink, metric):
    base, gateway = pair
    route = Route(base, bits, gateway, link, onlink, metric)
    assert read_route(route.add().body) == route


@given(ADDRESSES, MACS, LINKS)
def test_a_neighbour_comes_back_as_it_was_sent(address, mac, link):
    found = Neighbour(address, mac, link)
    assert read_neighbour(found.add().body) == found


@given(MACS, ADDRESSES, LINKS)
def test_a_forwarding_entry_comes_back_as_it_was_sent(mac, outer, link):
    found = Forward(mac, outer, link)
    assert read_forward(found.add().body) == found


def test_a_route_is_what_another_program_reads():
    message = decoded(rtmsg, Route.to(Prefix.parse("10.5.2.0/24"), bytes((10, 5, 2, 0)), 7, onlink=True).add())
    assert (message["family"], message["dst_len"], message["table"], message["proto"]) == (AF_INET, 24, 254, 117)
    assert (message["scope"], message["type"], message["flags"]) == (0, 1, 4)
    found = {name: message.get_attr(name) for name in ("RTA_DST", "RTA_GATEWAY", "RTA_OIF")}
    assert found == {"RTA_DST": "10.5.2.0", "RTA_GATEWAY": "10.5.2.0", "RTA_OIF": 7}


def test_an_ipv6_route_has_the_metric_the_kernel_would_give_it():
    message = decoded(rtmsg, Route.to(Prefix.parse("fd00:5:0:2::/64"), bytes(15) + b"\x01", 7).add())
    assert (message["family"], message.get_attr("RTA_DST")) == (AF_INET6, "fd00:5:0:2::")
    assert (message["flags"], message.get_attr("RTA_PRIORITY")) == (0, 1024)


def test_entries_of_devices_are_what_another_program_reads():
    mac = bytes.fromhex("c6d200010203")
    message = decoded(ndmsg, Neighbour(bytes((10, 5, 2, 0)), mac, 7).add())
    assert (message["family"], message["ifindex"], message["state"], message["flags"]) == (AF_INET, 7, 0x80, 0)
    assert (message.get_attr("NDA_DST"), message.get_attr("NDA_LLADDR")) == ("10.5.2.0", "c6:d2:00:01:02:03")
    message = decoded(ndmsg, Forward(mac, bytes((192, 0, 2, 2)), 7).add())
    assert (message["family"], message["ifindex"], message["state"], message["flags"]) == (7, 7, 0x80, 2)
    assert message.get_attr("NDA_LLADDR") == "c6:d2:00:01:02:03"


def route(kind=1, table=254, protocol=117, attributes=b""):
    return entries.ROUTE.pack(AF_INET, 24, 0, 0, table, protocol, 0, kind, 0) + attributes


@pytest.mark.parametrize("change", [{"kind": 6}, {"table": 255}, {"protocol": 3}])
def test_a_route_that_is_not_ours_is_none(change):
    assert read_route(route(**change)) is None


def neighbour(state=0x80, attributes=b""):
    return entries.NEIGHBOUR.pack(AF_INET, 0, 7, state, 0, 0) + attributes


def test_what_the_kernel_has_found_itself_is_none():
    both = attribute(1, bytes(4)) + attribute(2, b"123456")
    assert read_neighbour(neighbour(0x02, both)) is read_forward(neighbour(0x02, both)) is None
    assert read_neighbour(neighbour(0x80, attribute(1, bytes(4)))) is None
    assert read_forward(neighbour(0x80, attribute(1, bytes(4)) + attribute(2, bytes(6)))) is None, "for all MACs"
    assert read_forward(neighbour(0x80, attribute(2, b"123456"))) is None, "a bridge's"


def test_a_forwarding_entry_to_another_port_is_another_entry():
    both = attribute(1, bytes(4)) + attribute(2, b"123456")
    assert read_forward(neighbour(0x80, both)) != read_forward(neighbour(0x80, both + attribute(6, b"\x12\xb5")))


@pytest.mark.parametrize(
    ("attributes", "kind", "link"),
    [
        (attribute(4, struct.pack("=I", 3)), 1, 3),
        (attribute(4, struct.pack("=I", 3)), 2, 0),
        (attribute(4, struct.pack("=I", 3)) + attribute(5, bytes(4)), 1, 0),
        (attribute(4, struct.pack("=I", 3)) + attribute(18, bytes(18)), 1, 0),
        (attribute(9, bytes(8)), 1, 0),
        (b"", 1, 0),
    ],
    ids=["on the link", "this host", "gateway", "gateway of another family", "several", "nothing"],
)
def test_directly_connected(attributes, kind, link):
    assert direct_link(route(kind=kind, attributes=attributes)) == link


@given(st.binary(max_size=120))
def test_a_damaged_tail_is_survived(tail):
    for read, head in ((read_neighbour, neighbour()), (read_forward, neighbour())):
        read(head + tail)
