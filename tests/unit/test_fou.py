"""What is pure of the kernel's dataplane: its netlink messages, its rules' text, where its routes lead, its probe."""

import json
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.backends.peers import Own
from udpbackend.backends.udp_peers import TAKES_IPV6, reached
from udpbackend.host import fou, fou_guard
from udpbackend.host.fou import FouPort
from udpbackend.host.fou_probe import answer
from udpbackend.host.rtnetlink import attribute
from udpbackend.model import Lease, Prefix

ADDRESSES = st.integers(1, 0xFFFFFFFF).map(IPv4Address)


@given(st.builds(FouPort, st.integers(1, 65535), st.none() | ADDRESSES, st.booleans()))
def test_a_port_is_read_as_it_was_written(port):
    kind = attribute(fou.TYPE, bytes([fou.GUE if port.gue else 1]))
    assert fou.read(fou.GENERIC_HEADER.pack(1, 1) + port.packed() + kind) == port


@given(st.binary(max_size=64))
def test_no_answer_of_the_kernel_is_too_odd(body):
    fou.read(fou.GENERIC_HEADER.pack(1, 1) + body)


def test_a_port_says_what_it_is():
    assert str(FouPort(8285, IPv4Address("192.0.2.1"))) == "FOU port 8285 of 192.0.2.1"
    assert str(FouPort(8285, None)) == "FOU port 8285"


def wanted(peers=(), tunnels=(), device6=None):
    packed = [frozenset(IPv4Address(it).packed for it in group) for group in (peers, tunnels)]
    return fou_guard.Wanted(IPv4Address("192.0.2.1"), 8285, *packed, device6=device6)


def test_the_rules_are_one_transaction_that_begins_from_nothing():
    text = list(fou_guard.text(wanted(["192.0.2.3", "192.0.2.2"], ["192.0.2.9"], "flannel0-v6")))
    assert text[:4] == [
        "table ip udpbackend-8285",
        "delete table ip udpbackend-8285",
        "table ip6 udpbackend-8285",
        "delete table ip6 udpbackend-8285",
    ]
    assert "ip daddr 192.0.2.1 udp dport 8285 ip saddr != @peers counter drop" in text
    assert "ip daddr 192.0.2.1 ip protocol { 4, 41 } ip saddr != @tunnels counter drop" in text
    assert 'iifname "flannel0-v6" fib saddr . iif oif missing counter drop' in text
    assert text[-2:] == [
        "add element ip udpbackend-8285 peers { 192.0.2.2, 192.0.2.3 }",
        "add element ip udpbackend-8285 tunnels { 192.0.2.9 }",
    ]
    assert not any("fib" in line for line in fou_guard.text(wanted()))


def test_without_a_check_there_is_one_rule_still():
    """A GUE port takes version 0 too, which can carry anything."""
    text = list(fou_guard.text(replace(wanted(device6="flannel0-v6"), check=False)))
    assert [line for line in text if "drop" in line] == [
        "ip daddr 192.0.2.1 udp dport 8285 @th,64,4 != { 4, 6 } counter drop"
    ]


def test_65536_peers_are_lines_of_bounded_length():
    peers = [IPv4Address(0x0A000000 + number) for number in range(65536)]
    lines = [line for line in fou_guard.text(wanted(peers)) if line.startswith("add element")]
    assert max(map(len, lines)) < 400
    assert sum(line.count(",") + 1 for line in lines) == 65536


def test_peers_are_read_from_what_nft_prints():
    listed = {"nftables": [{"metainfo": {}}, {"set": {"name": "peers", "elem": ["192.0.2.2", "192.0.2.3"]}}]}
    assert fou_guard.peers_in(json.dumps(listed)) == wanted(["192.0.2.2", "192.0.2.3"]).peers
    listed["nftables"][1]["set"]["elem"].append({"range": ["192.0.2.4", "192.0.2.9"]})
    assert fou_guard.peers_in(json.dumps(listed)) != wanted(["192.0.2.2", "192.0.2.3"]).peers
    assert fou_guard.peers_in('{"nftables": [{"set": {"name": "peers"}}]}') == frozenset()


def lease(subnet, public, *, ipv6=None, said=None):
    return Lease(
        subnet=Prefix.parse(subnet),
        public_ip=int(IPv4Address(public)),
        ipv6_subnet=Prefix.parse(ipv6) if ipv6 else None,
        backend_data=said,
    )


def test_a_route_leads_to_the_peer_itself_whatever_is_inside():
    own = Own(Prefix.parse("10.5.1.0/24"), int(IPv4Address("192.0.2.1")))
    leases = [
        lease("10.5.1.0/24", "192.0.2.1", ipv6="fd00:5:0:1::/64", said=TAKES_IPV6),
        lease("10.5.2.0/24", "192.0.2.2", ipv6="fd00:5:0:2::/64", said=TAKES_IPV6),
        lease("10.5.3.0/24", "192.0.2.3", ipv6="fd00:5:0:3::/64", said=b"{}"),  # flanneld damages IPv6
        lease("10.5.4.0/24", "192.0.2.4"),
    ]
    assert [(str(it.subnet), it.gateway) for it in reached(leases, own, 4)] == [
        (f"10.5.{number}.0/24", bytes([192, 0, 2, number])) for number in (2, 3, 4)
    ]
    assert [(str(it.subnet), it.gateway) for it in reached(leases, own, 6)] == [
        ("fd00:5:0:2::/64", bytes(12) + bytes([192, 0, 2, 2]))
    ]


@pytest.mark.parametrize("payload", [b"", b"payload"])
def test_the_probe_s_answer_goes_back(payload):
    packet = bytes(12) + IPv4Address("10.0.0.1").packed + IPv4Address("10.0.1.1").packed + payload
    assert answer(packet) == bytes(12) + IPv4Address("10.0.1.1").packed + IPv4Address("10.0.0.1").packed + payload
