"""What vxlan nodes tell each other: the JSON of their leases, derived MAC addresses, the ways to peers."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.backends.peers import Own, Peer, others
from udpbackend.backends.vxlan_peers import Reached, backend_data, derived_mac, random_mac, reached, said_mac, ways
from udpbackend.errors import ConfigError
from udpbackend.host.entries import Forward, Neighbour, Route
from udpbackend.model import Lease, Prefix

SUBNET = Prefix.parse("10.5.2.0/24")
MAC = bytes.fromhex("c6d200010203")
DEVICE = 7
PREFIXES = st.builds(
    lambda address, bits: Prefix(address, bits).masked(), st.integers(0, 2**32 - 1), st.integers(8, 30)
)
PREFIXES6 = st.builds(
    lambda address, bits: Prefix(address, bits, 6).masked(), st.integers(0, 2**128 - 1), st.integers(8, 126)
)


def test_a_node_says_what_flannel_s_says_to_the_byte():
    assert backend_data(1, MAC) == b'{"VNI":1,"VtepMAC":"c6:d2:00:01:02:03"}'


@given(st.integers(0, 2**24 - 1), st.binary(min_size=5, max_size=5))
def test_what_a_node_says_is_read_again(vni, rest):
    mac = b"\x02" + rest
    assert said_mac(backend_data(vni, mac), vni) == mac


@pytest.mark.parametrize(
    "said",
    [
        b'{"VtepMAC":"c6:d2:00:01:02:03"}',
        b'{"VNI":1,"VtepMAC":"C6:D2:00:01:02:03"}',
        b'{"vni":1,"vtepmac":"c6-d2-00-01-02-03","More":[]}',
        b'{"VNI":null,"VtepMAC":"c6:d2:00:01:02:03"}',
    ],
)
def test_it_is_read_as_go_reads_it(said):
    assert said_mac(said, 1) == MAC


@given(
    st.binary() | st.text().map(str.encode) | st.dictionaries(st.text(), st.integers()).map(json.dumps).map(str.encode)
)
def test_anything_else_is_a_config_error(said):
    with contextlib.suppress(ConfigError):
        assert len(said_mac(said, 1)) == 6


@given(PREFIXES | PREFIXES6, st.integers(0, 2**24 - 1))
def test_a_derived_mac_is_one_device_s_and_locally_administered(subnet, vni):
    mac = derived_mac(vni, subnet)
    assert (len(mac), mac[0] & 3) == (6, 2)
    assert mac == derived_mac(vni, subnet)
    assert mac != derived_mac(vni ^ 1, subnet)


def test_derived_macs_stay_as_they_are():
    """Nodes of different versions have to agree on them."""
    assert derived_mac(1, SUBNET).hex(":") == "5a:ef:b6:ea:23:1c"
    assert derived_mac(1, Prefix.parse("fd00:5:0:2::/64")).hex(":") == "22:22:7b:0c:1a:82"


def test_no_two_subnets_of_a_network_share_a_derived_mac():
    macs = {derived_mac(1, Prefix((10 << 24) + (i << 8), 24)) for i in range(65536)}
    assert len(macs) == 65536


def test_random_macs_are_of_the_same_kind():
    macs = {random_mac() for _ in range(50)}
    assert len(macs) == 50
    assert {mac[0] & 3 for mac in macs} == {2}


def peer(number, mac=None, outer=None, said=b""):
    data = backend_data(1, mac or bytes((2, 0, 0, 0, 0, number))) if said == b"" else said
    subnet = Prefix((10 << 24) + (5 << 16) + (number << 8), 24)
    return Peer(f"node n{number}", subnet, outer or bytes((192, 0, 2, number)), data)


def test_peers_are_reached_by_what_they_say():
    found, problems = reached([peer(2), peer(3, said=None)], 1, MAC)
    assert problems == []
    assert [it.mac for it in found] == [bytes((2, 0, 0, 0, 0, 2)), derived_mac(1, peer(3).subnet)]


def test_of_two_leases_with_one_mac_the_newer_is_in_force():
    """A node that has moved says the MAC it had, and its old lease, of an address that is dead, lasts for a day."""
    twin = bytes((2, 0, 0, 0, 0, 2))
    found, problems = reached([peer(2), peer(3, twin), peer(4, MAC)], 1, MAC)
    assert [it.who for it in found] == ["node n3"]
    ours, older = problems
    assert ours == "node n4 (10.5.4.0/24) is not reached: its VtepMAC c6:d2:00:01:02:03 is that of this host too"
    assert older.startswith("node n2 (10.5.2.0/24) is not reached: its VtepMAC 02:00:00:00:00:02 is that of node n3 ")
    assert older.endswith("whose lease is newer")
    found, problems = reached([peer(2), peer(3, twin), peer(5, twin, outer=peer(2).outer)], 1, MAC)
    assert [it.who for it in found] == ["node n2", "node n5"], "it has moved back"
    assert len(problems) == 1


def test_a_way_is_neighbour_forwarding_entry_and_route():
    base, outer = SUBNET.packed(), bytes((192, 0, 2, 2))
    [way] = ways([Reached("n", SUBNET, outer, MAC)], DEVICE, {})
    assert way.route == Route(base, 24, base, DEVICE, onlink=True, metric=0)
    assert way.needs == (Neighbour(base, MAC, DEVICE), Forward(MAC, outer, DEVICE))


def test_a_peer_on_a_link_of_ours_needs_a_route_only():
    outer = bytes((192, 0, 2, 2))
    [way] = ways([Reached("n", SUBNET, outer, MAC)], DEVICE, {outer: 3})
    assert way.route == Route(SUBNET.packed(), 24, outer, 3, onlink=False, metric=0)
    assert way.needs is None


def test_others_are_neither_this_node_nor_what_it_was():
    own = Own(Prefix.parse("10.5.1.0/24"), 1)
    six = Prefix.parse("fd00:5::/64")
    leases = [
        Lease(own.subnet, 9),
        Lease(Prefix.parse("10.5.9.0/24"), 1),
        Lease(SUBNET, 0xC0000202, "b", six, backend_data=b"4", backend_v6_data=b"6", public_ipv6=5),
        Lease(Prefix.parse("10.5.3.0/24"), 0xC0000203, ipv6_subnet=Prefix.parse("fd00:5:0:3::/64")),
        Lease(Prefix.parse("10.5.4.0/24"), 0xC0000204),
    ]
    assert list(others(leases, own, 4)) == [
        Peer("node b", SUBNET, bytes((192, 0, 2, 2)), b"4"),
        Peer("node 192.0.2.3", Prefix.parse("10.5.3.0/24"), bytes((192, 0, 2, 3)), None),
        Peer("node 192.0.2.4", Prefix.parse("10.5.4.0/24"), bytes((192, 0, 2, 4)), None),
    ]
    assert list(others(leases, own, 6)) == [
        Peer("node b", six, bytes(15) + b"\x05", b"6"),
        Peer("node 192.0.2.3", Prefix.parse("fd00:5:0:3::/64"), None, None),
    ]
