"""The rules to the letter, as flannel has them and as the programs list them."""

from dataclasses import replace

import pytest
from firewall_texts import FORWARD, FORWARD_JUMP, NAT, NAT_JUMP, NFT, PLAN, PLAN6, of_version_6

from udpbackend.host.firewall_rules import BRANCHES, iptables_rules, nft_tables


def lines(text):
    return tuple(text.splitlines())


def rules(text):
    """Without the line that lists the chain itself."""
    return tuple(line for line in text.splitlines() if not line.startswith("-N "))


def test_the_rules_of_iptables():
    assert iptables_rules(PLAN, 4) == {"nat": rules(NAT), "filter": rules(FORWARD)}
    assert [branch.jump for branch in BRANCHES] == [NAT_JUMP, FORWARD_JUMP]


def test_the_rules_of_ip6tables():
    assert iptables_rules(PLAN, 6) == {"nat": (), "filter": ()}
    assert iptables_rules(PLAN6, 4) == iptables_rules(PLAN, 4)
    assert iptables_rules(PLAN6, 6) == {"nat": rules(of_version_6(NAT)), "filter": rules(of_version_6(FORWARD))}


def test_the_tables_of_nft():
    assert nft_tables(PLAN) == {"ip flannel-ipv4": lines(NFT), "ip6 flannel-ipv6": ()}
    assert nft_tables(PLAN6) == {"ip flannel-ipv4": lines(NFT), "ip6 flannel-ipv6": lines(of_version_6(NFT))}


def test_source_ports_in_order():
    plan = replace(PLAN6, fully_random=False)
    assert iptables_rules(plan, 4)["nat"] == rules(NAT.replace(" --random-fully", ""))
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
