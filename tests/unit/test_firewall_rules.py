"""The rules to the letter, as flannel has them and as the programs list them."""

from dataclasses import replace

import pytest

from udpbackend.host.firewall_rules import BRANCHES, FirewallPlan, iptables_rules, nft_tables
from udpbackend.model import Prefix

PLAN = FirewallPlan(Prefix.parse("10.5.0.0/16"), Prefix.parse("10.5.3.0/24"), masquerade=True)
PLAN6 = replace(PLAN, network6=Prefix.parse("fd00:5::/48"), subnet6=Prefix.parse("fd00:5:0:3::/64"))

MASQUERADE = """\
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.3.0/24 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 -d 10.5.3.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.3.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
"""

FORWARD = """\
-A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
"""

NFT = """\
table ip flannel-ipv4 {
	comment "rules for flannel-ipv4"
	chain postrtg {
		comment "chain to manage traffic masquerading by flannel"
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 == 0x00004000 return
		ip saddr 10.5.3.0/24 ip daddr 10.5.0.0/16 return
		ip saddr 10.5.0.0/16 ip daddr 10.5.3.0/24 return
		ip saddr != 10.5.0.0/16 ip daddr 10.5.3.0/24 return
		ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
		ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 masquerade fully-random
	}

	chain forward {
		comment "chain to accept flannel traffic"
		type filter hook forward priority filter; policy accept;
		ip saddr 10.5.0.0/16 accept
		ip daddr 10.5.0.0/16 accept
	}
}
"""


def of_version_6(text):
    """The same text for IPv6: nothing but the words for addresses differ."""
    for four, six in (
        ("10.5.3.0/24", "fd00:5:0:3::/64"),
        ("10.5.0.0/16", "fd00:5::/48"),
        ("224.0.0.0/4", "ff00::/8"),
        ("ipv4", "ipv6"),
        ("ip saddr", "ip6 saddr"),
        ("ip daddr", "ip6 daddr"),
        ("table ip ", "table ip6 "),
    ):
        text = text.replace(four, six)
    return text


def lines(text):
    return tuple(text.splitlines())


def test_the_rules_of_iptables():
    assert iptables_rules(PLAN, 4) == {"nat": lines(MASQUERADE), "filter": lines(FORWARD)}
    assert [branch.jump for branch in BRANCHES] == [
        '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG',
        '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD',
    ]


def test_the_rules_of_ip6tables():
    assert iptables_rules(PLAN, 6) == {"nat": (), "filter": ()}
    assert iptables_rules(PLAN6, 4) == iptables_rules(PLAN, 4)
    assert iptables_rules(PLAN6, 6) == {"nat": lines(of_version_6(MASQUERADE)), "filter": lines(of_version_6(FORWARD))}


def test_the_tables_of_nft():
    assert nft_tables(PLAN) == {"ip flannel-ipv4": lines(NFT), "ip6 flannel-ipv6": ()}
    assert nft_tables(PLAN6) == {"ip flannel-ipv4": lines(NFT), "ip6 flannel-ipv6": lines(of_version_6(NFT))}


def test_source_ports_in_order():
    plan = replace(PLAN6, fully_random=False)
    assert iptables_rules(plan, 4)["nat"] == lines(MASQUERADE.replace(" --random-fully", ""))
    assert nft_tables(plan)["ip6 flannel-ipv6"] == lines(of_version_6(NFT).replace(" fully-random", ""))


@pytest.mark.parametrize(
    ("switch", "table", "left", "chain"),
    [
        ("masquerade", "nat", "filter", "\tchain forward {"),
        ("forward", "filter", "nat", "\tchain postrtg {"),
    ],
)
def test_each_part_can_be_left_out(switch, table, left, chain):
    plan = replace(PLAN6, **{switch: False})
    for version in (4, 6):
        assert iptables_rules(plan, version) == {table: (), left: iptables_rules(PLAN6, version)[left]}
    for text in nft_tables(plan).values():
        assert [line for line in text if "chain" in line and "{" in line] == [chain]


def test_no_plan_no_rules():
    nothing = replace(PLAN6, masquerade=False, forward=False)
    for plan in (None, nothing):
        assert nft_tables(plan) == {"ip flannel-ipv4": (), "ip6 flannel-ipv6": ()}
        for version in (4, 6):
            assert iptables_rules(plan, version) == {"nat": (), "filter": ()}
