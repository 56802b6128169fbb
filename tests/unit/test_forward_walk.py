"""What becomes of a packet in chains of iptables and of nftables, as far as that is certain."""

from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.host.forward_passage import Passage, which
from udpbackend.host.forward_path import Ended, Packet, walk
from udpbackend.host.forward_rules import iptables_chain, iptables_rule, nft_chain
from udpbackend.model import Prefix

PASSAGE = Passage(Prefix.parse("10.5.0.0/16"), Prefix.parse("10.5.3.0/24"), "flannel0")
OUT, BACK = PASSAGE.packets
HOSTS_REJECT = "-A FORWARD -j REJECT --reject-with icmp-host-prohibited"
OURS = ("-A FLANNEL-FWD -s 10.5.0.0/16 -j ACCEPT", "-A FLANNEL-FWD -d 10.5.0.0/16 -j ACCEPT")


def fate(*lines, packet=OUT, policy="ACCEPT"):
    """Of a packet in FORWARD, of chains that these lines are the rules of."""
    chains = {"FORWARD": [f"-P FORWARD {policy}"]}
    for line in lines:
        chains.setdefault(line.split()[1], []).append(line)

    def chain_of(name):
        return iptables_chain("\n".join(chains[name]), packet) if name in chains else None

    return walk("FORWARD", chain_of)


def ended(rule, chain="FORWARD", place=0):
    return Ended(place, chain, rule)


def test_the_packets_are_those_between_pods():
    assert Packet(IPv4Address("10.5.3.2"), IPv4Address("10.5.255.253"), "cni0", "flannel0") == OUT
    assert Packet(IPv4Address("10.5.255.253"), IPv4Address("10.5.3.2"), "flannel0", "cni0") == BACK
    last = Passage(Prefix.parse("10.5.0.0/16"), Prefix.parse("10.5.255.0/24"), "flannel0").packets[0]
    assert str(last.destination) == "10.5.0.2"
    six = Passage(Prefix.parse("fd00:5::/48"), Prefix.parse("fd00:5:0:3::/64"), "flannel0").packets[0]
    assert str(six.source) == "fd00:5:0:3::2"


def test_a_peers_packets_are_those_of_a_pod_of_it_and_of_an_address_itself():
    peer, alone = Prefix.parse("10.5.9.0/24"), Prefix.parse("10.5.9.7/32")
    assert [str(replace(PASSAGE, far=it).packets[0].destination) for it in (peer, alone)] == ["10.5.9.2", "10.5.9.7"]
    rule = "-A FORWARD -d 10.5.9.0/24 -j DROP"
    assert fate(rule) == "accept"
    assert fate(rule, packet=replace(PASSAGE, far=peer).packets[0]) == ended(rule)


def test_whose_packets_in_words():
    end = ended("rule")
    peers = [replace(PASSAGE, far=Prefix.parse(f"10.5.{i}.0/24")) for i in range(10, 17)]
    assert which(peers[:2], (end, end)) == "between pods of this node and 10.5.10.0/24, 10.5.11.0/24"
    assert which(peers[:1], (end, None)) == "from pods of this node to 10.5.10.0/24"
    assert which(peers, (None, end)).endswith("10.5.14.0/24 and 2 more to pods of this node")


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], "accept"),
        ([HOSTS_REJECT], ended(HOSTS_REJECT)),
        (["-A FORWARD -j FLANNEL-FWD", *OURS, HOSTS_REJECT], "accept"),
        ([HOSTS_REJECT, "-A FORWARD -j FLANNEL-FWD", *OURS], ended(HOSTS_REJECT)),
        (["-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT", HOSTS_REJECT], ended(HOSTS_REJECT, place=1)),
        (["-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT", HOSTS_REJECT], ended(HOSTS_REJECT, place=1)),
        (["-A FORWARD -p icmp -j ACCEPT", HOSTS_REJECT], ended(HOSTS_REJECT, place=1)),
        (["-A FORWARD -i docker0 ! -o docker0 -j ACCEPT", HOSTS_REJECT], ended(HOSTS_REJECT, place=1)),
        (["-A FORWARD -i cni+ -j ACCEPT", HOSTS_REJECT], "accept"),
        (["-A FORWARD -s 10.5.0.0/16 -d 192.168.0.0/16 -j DROP"], "accept"),
        (["-A FORWARD ! -s 10.5.0.0/16 -j DROP"], "accept"),
        (["-A FORWARD -m conntrack --ctstate INVALID -j DROP"], "accept"),
        (["-A FORWARD -m set --match-set mine src -j ACCEPT", HOSTS_REJECT], "unsure"),
        (["-A FORWARD -m mark --mark 0x1/0x1 -j DROP", "-A FORWARD -j ACCEPT"], "unsure"),
        (['-A FORWARD -j LOG --log-prefix "-j DROP "', "-A FORWARD -j ACCEPT"], "accept"),
        (["-A FORWARD -j ufw-reject", "-A ufw-reject -j REJECT"], ended("-A ufw-reject -j REJECT", "ufw-reject")),
        (["-A FORWARD -j USER", "-A USER -j RETURN", HOSTS_REJECT], ended(HOSTS_REJECT, place=1)),
        (["-A FORWARD -g USER", "-A USER -p udp -j ACCEPT", HOSTS_REJECT], "accept"),
        (["-A FORWARD -j NFQUEUE --queue-num 1", HOSTS_REJECT], "unsure"),
        (["-A FORWARD -j gone", HOSTS_REJECT], "unsure"),
        (["-A FORWARD -j LOOP", "-A LOOP -j LOOP"], "unsure"),
    ],
)  # fmt: skip
def test_iptables(lines, found):
    assert fate(*lines) == found


def test_the_policy_counts_where_no_rule_does():
    assert fate(policy="DROP") == Ended(None, "FORWARD", "")
    assert fate("-A FORWARD -s 10.5.0.0/16 -j ACCEPT", policy="DROP") == "accept"
    assert fate("-A FORWARD -i cni0 -j ACCEPT", policy="DROP") == "accept"
    assert fate("-A FORWARD -i cni0 -j ACCEPT", policy="DROP", packet=BACK) == Ended(None, "FORWARD", "")
    assert fate("-A FORWARD -j X", "-A X -p udp -j DROP", policy="DROP") == Ended(None, "FORWARD", "")


@given(st.text())
def test_any_line_is_read(text):
    assert iptables_rule(f"-A FORWARD {text}", OUT).meets in {True, False, None}


def match(left, right, op="=="):
    return {"match": {"op": op, "left": left, "right": right}}


SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
NETWORK = {"prefix": {"addr": "10.5.0.0", "len": 16}}
TO_DNS = {"payload": {"protocol": "udp", "field": "dport"}}
TO_WEB = {"payload": {"protocol": "tcp", "field": "dport"}}
STATE = {"ct": {"key": "state"}}
NAMED = {"meta": {"key": "iifname"}}
COUNTED = {"counter": {"packets": 1, "bytes": 2}}
POLICY = Ended(None, "forward", "")


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ([], POLICY),
        ([[match(SADDR, NETWORK), COUNTED, {"accept": None}]], "accept"),
        ([[match(SADDR, {"set": [{"range": ["10.5.0.0", "10.5.9.9"]}]}), {"accept": None}]], "accept"),
        ([[match(SADDR, NETWORK, "!="), {"accept": None}]], POLICY),
        ([[match(SADDR, "@pods"), {"accept": None}]], "unsure"),
        ([[match(STATE, ["established", "related"], "in"), {"accept": None}]], POLICY),
        ([[match(STATE, {"set": ["new", "established"]}, "in"), {"accept": None}]], "accept"),
        ([[match(NAMED, {"set": ["docker0", "cni*"]}), {"accept": None}]], "accept"),
        ([[match(NAMED, "eth0"), {"accept": None}]], POLICY),
        ([[match(TO_DNS, 53), {"accept": None}]], POLICY),
        ([[match(TO_WEB, {"set": [80, {"range": [443, 450]}]}), {"accept": None}]], POLICY),
        ([[match(TO_WEB, {"range": [1024, 65535]}), {"accept": None}]], "accept"),
        ([[match({"meta": {"key": "nfproto"}}, "ipv6"), {"accept": None}]], POLICY),
        ([[match({"meta": {"key": "mark"}}, 4), {"accept": None}]], "unsure"),
        ([[{"limit": {"rate": 1}}, {"accept": None}]], "unsure"),
        ([[{"vmap": {"key": STATE, "data": "@x"}}]], "unsure"),
        ([[{"xt": None}]], "unsure"),
        ([[{"log": {"prefix": "x"}}, {"reject": {"type": "icmp"}}]], Ended(0, "forward", "# handle 0")),
        ([[{"jump": {"target": "mine"}}]], "accept"),
    ],
)  # fmt: skip
def test_nftables(rules, found):
    listed = [
        {"metainfo": {}},
        {"chain": {"name": "forward", "hook": "forward", "policy": "drop"}},
        *({"rule": {"chain": "forward", "handle": at, "expr": rule}} for at, rule in enumerate(rules)),
        {"rule": {"chain": "mine", "handle": 9, "expr": [{"accept": None}]}},
    ]
    assert walk("forward", partial(nft_chain, listed, packet=OUT)) == found
