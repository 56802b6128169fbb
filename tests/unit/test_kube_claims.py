"""Two nodes that claim one subnet: who counts, that of any claims a disjoint set is left. And two at one address."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from udpbackend.model import Lease, Prefix
from udpbackend.subnets.kube.claims import settle
from udpbackend.subnets.kube.node import Reading

OWN = Lease(Prefix.parse("10.244.1.0/24"), 1, "own")


def claim(name, subnet, public_ip, since, six=None):
    return Reading(Lease(Prefix.parse(subnet), public_ip, name, six and Prefix.parse(six)), "", since)


def settled(*readings):
    leases, refused, doubted = settle(OWN, readings)
    assert not doubted
    return [lease.node for lease in leases], refused


def test_the_older_counts_and_order_does_not():
    old, young = claim("x", "10.244.2.0/24", 2, "2025"), claim("b", "10.244.2.0/24", 3, "2026")
    for order in ((old, young), (young, old)):
        assert settled(*order) == (
            ["own", "x"],
            {"b": "its podCIDR 10.244.2.0/24 overlaps that of the node 'x'"},
        )


def test_of_two_of_one_age_the_name_decides():
    assert settled(claim("c", "10.244.2.0/24", 2, "2025"), claim("b", "10.244.2.0/25", 3, "2025")) == (
        ["own", "b"],
        {"c": "its podCIDR 10.244.2.0/24 overlaps that of the node 'b'"},
    )


def test_nodes_at_one_address_all_count():
    """A machine that was set up anew under another name, while the object of its old one lingers."""
    old, new, third = (claim(f"n{i}", f"10.244.{i}.0/24", 2, f"202{i}") for i in (2, 3, 4))
    for order in ((old, new, third), (third, new, old)):
        leases, refused, doubted = settle(OWN, order)
        assert [lease.node for lease in leases] == ["own", "n2", "n3", "n4"]
        assert not refused
        assert doubted == dict.fromkeys(("n3", "n4"), "its public-ip 0.0.0.2 is that of the node 'n2' too")


def test_a_node_that_does_not_count_has_no_address():
    leases, refused, doubted = settle(
        OWN, (claim("b", "10.244.1.0/24", 2, "2025"), claim("c", "10.244.3.0/24", 2, "2026"))
    )
    assert [lease.node for lease in leases] == ["own", "c"]
    assert (list(refused), doubted) == (["b"], {})


def test_we_ourselves_count_before_all_others():
    older = claim("b", "10.244.0.0/22", 2, "1999"), claim("c", "10.244.2.0/24", 1, "1999")
    assert settled(*older) == (
        ["own"],
        {
            "b": "its podCIDR 10.244.0.0/22 overlaps that of the node 'own'",
            "c": "its public-ip 0.0.0.1 is that of the node 'own' too",
        },
    )


def test_the_ipv6_half_counts_too():
    first = claim("b", "10.244.2.0/24", 2, "1", "fd00:0:0:2::/64")
    second = claim("c", "10.244.3.0/24", 3, "2", "fd00::/48")
    assert settled(first, second)[0] == ["own", "b"]


def test_a_node_without_a_lease_claims_nothing():
    assert settled(Reading(None, "broken", "1")) == (["own"], {})


prefixes = st.builds(
    lambda address, bits: Prefix(address << 16, bits).masked(), st.integers(0, 0xFFFF), st.integers(8, 24)
)
readings = st.lists(
    st.builds(
        lambda i, p, ip, since: (i, p, ip, since), st.integers(), prefixes, st.integers(0, 40), st.sampled_from("123")
    ),
    max_size=40,
    unique_by=lambda it: it[0],
)


@given(readings)
def test_what_is_left_is_disjoint_and_nobody_is_lost(claims):
    made = [Reading(Lease(prefix, ip, f"n{i}"), "", since) for i, prefix, ip, since in claims]
    leases, refused, doubted = settle(OWN, made)
    assert OWN in leases
    assert {lease.node for lease in leases} | set(refused) == {it.lease.node for it in made} | {"own"}
    assert len(leases) + len(refused) == len(made) + 1
    assert all(not one.subnet.overlaps(other.subnet) for one, other in combinations(leases, 2))
    assert len({lease.public_ip for lease in leases}) == len(leases) - len(doubted)
    assert [lease.node for lease in leases if lease.public_ip == OWN.public_ip] == ["own"]
    assert list(leases) == sorted(leases, key=lambda lease: lease.subnet)
