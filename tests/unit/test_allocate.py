"""Free subnets: flannel's rule, checked against the rule written out plainly."""

import json
import time
from ipaddress import IPv4Address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.errors import ConfigError
from udpbackend.model import Prefix
from udpbackend.subnets.allocate import CHOICES, choose, fits
from udpbackend.subnets.config import parse_config

IPV6 = {"EnableIPv6": True, "IPv6Network": "fc00::/48"}


def chance(seed):
    return Random(seed)  # noqa: S311  (a test is the same every time)


def config(**keys):
    return parse_config(json.dumps({"Network": "10.5.0.0/16", **keys}))


def prefixes(*texts):
    return [Prefix.parse(text) for text in texts]


def all_choices(network, taken, tries=2000):
    random = chance(1)
    return {choose(network, taken, (), random) for _ in range(tries)}


def test_the_first_hundred_are_chosen_from_alike():
    found = all_choices(config(), [])
    assert found == {(Prefix.parse(f"10.5.{n}.0/24"), None) for n in range(1, CHOICES + 1)}


def test_any_overlap_makes_a_subnet_taken():
    network = config(SubnetMin="10.5.16.0", SubnetMax="10.5.31.0")
    taken = prefixes("10.5.16.0/22", "10.5.21.128/25", "10.5.24.0/24")
    assert {str(subnet) for subnet, _ in all_choices(network, taken)} == {
        f"10.5.{n}.0/24" for n in (20, 22, 23, 25, 26, 27, 28, 29, 30, 31)
    }


def test_both_halves_are_chosen_for_themselves():
    network = config(SubnetMin="10.5.1.0", SubnetMax="10.5.2.0", IPv6SubnetMax="fc00:0:0:2::", **IPV6)
    found = all_choices(network, prefixes("10.5.1.0/24", "fc00:0:0:2::/64", "10.9.0.0/16", "fd00::/8"))
    assert [tuple(map(str, each)) for each in found] == [("10.5.2.0/24", "fc00:0:0:1::/64")]


def test_huge_ranges_cost_nothing():
    network = config(Network="10.0.0.0/8", SubnetLen=30, EnableIPv6=True, IPv6Network="fc00::/16", IPv6SubnetLen=112)
    began = time.process_time()
    subnet, subnet6 = choose(network, prefixes("10.0.0.0/9", "fc00::/17"), (), chance(1))
    assert str(subnet).startswith("10.128.")
    assert str(subnet6).startswith("fc00:8000::")
    assert time.process_time() - began < 0.1


def test_a_full_network_of_65536_nodes_is_looked_through_quickly():
    network = config(Network="10.0.0.0/8", SubnetMin="10.0.0.0")
    taken = [Prefix(10 << 24 | n << 8, 24) for n in range(65536)]
    chance(7).shuffle(taken)
    last = taken.pop()
    began = time.process_time()
    assert choose(network, taken, (), chance(1)) == (last, None)
    assert time.process_time() - began < 1.0
    with pytest.raises(ConfigError, match=r"^out of subnets: every /24 from 10.0.0.0 to 10.255.255.0 is taken"):
        choose(network, [*taken, last], (), chance(1))


def test_no_ipv6_left_is_no_subnet():
    with pytest.raises(ConfigError, match=r"^out of subnets: every /64 from fc00:0:0:1:: to fc00:0:0:ffff:: is taken"):
        choose(config(**IPV6), prefixes("10.5.1.0/24", "fc00::/48"), (), chance(1))


def test_a_minimum_above_the_maximum_leaves_nothing():
    with pytest.raises(ConfigError, match=r"^out of subnets"):
        choose(config(SubnetMin="10.5.9.0", SubnetMax="10.5.8.0"), [], (), chance(1))


def test_what_is_wanted_is_taken_if_it_can_be():
    network = config(**IPV6)
    wanted = prefixes("10.5.200.0/24", "fc00:0:0:200::/64")
    assert choose(network, [], wanted, chance(1)) == tuple(wanted)
    subnet, subnet6 = choose(network, prefixes("10.5.200.128/25"), wanted, chance(1))
    assert subnet != wanted[0]
    assert subnet6 == wanted[1]
    for bad in prefixes("10.5.0.0/24", "10.6.1.0/24", "10.5.4.0/25", "fc00:0:1::/64"):
        assert bad not in choose(network, [], [bad], chance(1))


@pytest.mark.parametrize(
    ("subnet", "expected"),
    [
        ("10.5.1.0/24", True),
        ("10.5.255.0/24", True),
        ("10.5.0.0/24", False),
        ("10.5.2.0/23", False),
        ("10.6.1.0/24", False),
        ("fc00:0:0:1::/64", False),
    ],
)
def test_what_fits(subnet, expected):
    assert fits(config(), Prefix.parse(subnet)) is expected


SUBNETS = st.builds(
    lambda address, bits: Prefix(address, bits).masked(),
    st.integers(int(IPv4Address("10.4.0.0")), int(IPv4Address("10.6.255.255"))),
    st.integers(14, 30),
)


@given(st.lists(SUBNETS, max_size=40), st.integers(20, 28), st.integers(0, 1000))
def test_the_choice_is_flannels(taken, bits, seed):
    network = config(Network="10.5.0.0/18", SubnetLen=bits)
    step = 1 << (32 - bits)
    bases = range(int(network.subnet_min), int(network.subnet_max) + 1, step)
    every = [Prefix(base, bits) for base in bases]
    plain = [it for it in every if not any(it.overlaps(other) for other in taken)][:CHOICES]
    try:
        found, _ = choose(network, taken, (), chance(seed))
    except ConfigError:
        assert not plain
    else:
        assert found == chance(seed).choice(plain)
