"""The leases as a fold of lists and changes, rule by rule."""

import pytest
from etcd_played import OWN, OWN_KEY, Watched, key, value


@pytest.fixture
def watched():
    made = Watched()
    made.settled()
    return made


def test_at_first_there_is_our_own(watched):
    assert watched.view.leases == (OWN,)


def test_leases_come_change_and_go(watched):
    watched.put("10.5.1.0-24", value(7))
    assert watched.settled()
    assert watched.subnets() == ["10.5.1.0/24"]
    watched.put("10.5.1.0-24", value(9))
    assert watched.settled()
    assert {str(lease.public_address) for lease in watched.view.leases} == {"192.0.2.1", "192.0.2.9"}
    watched.delete("10.5.1.0-24")
    assert watched.settled()
    assert watched.view.leases == (OWN,)


def test_a_renewal_changes_nothing(watched):
    watched.put("10.5.1.0-24", value(7))
    watched.settled()
    for _ in range(3):
        watched.put("10.5.1.0-24", value(7))
        assert not watched.view.unsettled
        assert not watched.settled()
    assert watched.list() is None, "the renewals were seen"


def test_what_comes_back_within_one_settling_changes_nothing(watched):
    watched.put("10.5.1.0-24", value(7))
    watched.settled()
    watched.delete("10.5.1.0-24")
    watched.put("10.5.1.0-24", value(7))
    assert not watched.settled()


def test_leases_stand_in_the_order_of_their_age(watched):
    """Whatever has changed since: of two nodes that claim one thing a backend follows the newer."""
    for name, who in (("10.5.7.0-24", 7), ("10.5.2.0-24", 8), ("10.5.9.0-24", 9)):
        watched.put(name, value(who))
        watched.settled()
    order = ["10.5.7.0/24", "10.5.2.0/24", "10.5.9.0/24"]
    assert watched.in_order() == order
    watched.put("10.5.7.0-24", value(17))
    watched.settled()
    assert watched.in_order() == order, "a change makes no lease younger"
    watched.list()
    watched.settled()
    assert watched.in_order() == order, "a list says the same"
    watched.delete("10.5.7.0-24")
    watched.put("10.5.7.0-24", value(17))
    watched.put("10.5.1.0-24", value(11))
    watched.settled()
    assert watched.in_order() == [*order[1:], order[0], "10.5.1.0/24"], "a key that was made anew is"
    watched.etcd.delete(key("10.5.9.0-24"))
    watched.etcd.cluster_id += 1
    assert watched.list()
    watched.settled()
    assert watched.in_order()[:1] == ["10.5.9.0/24"], "a lease that a reset has left stands for the least"


def test_a_list_is_taken_as_a_difference(watched):
    watched.put("10.5.1.0-24", value(7))
    watched.settled()
    watched.list()
    assert not watched.settled()
    watched.etcd.put(key("10.5.2.0-24"), value(8))
    watched.etcd.delete(key("10.5.1.0-24"))
    assert watched.list() is None
    assert watched.settled()
    assert watched.subnets() == ["10.5.2.0/24"]


def test_a_change_that_the_list_included_is_not_taken_twice(watched):
    event = watched.etcd.put(key("10.5.1.0-24"), value(7))
    watched.etcd.delete(key("10.5.1.0-24"))
    watched.list()
    watched.do(event)
    watched.settled()
    assert watched.subnets() == []


BROKEN = {
    "key": ("garbage", b"x", "expected a key like"),
    "host bits": ("10.5.1.1-24", value(7), "expected a key like"),
    "value": ("10.5.1.0-24", b"x", "expected a lease as JSON"),
    "address": ("10.5.1.0-24", b'{"PublicIP":"nowhere"}', "PublicIP: expected the IPv4 address of a host"),
    "outside": ("10.6.1.0-24", value(7), "expected a subnet inside the Network 10.5.0.0/16"),
}


@pytest.mark.parametrize(("name", "text", "complaint"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_is_left_out_and_told_once(watched, name, text, complaint):
    watched.put("10.5.9.0-24", value(9))
    watched.settled()
    watched.put(name, text)
    watched.settled()
    [told] = watched.view.complaints()
    assert complaint in told
    assert name in told
    watched.put(name, text)
    watched.list()
    assert not watched.settled()
    assert watched.view.complaints() == []
    watched.delete(name)
    assert not watched.settled()
    assert watched.subnets() == ["10.5.9.0/24"]


def test_a_bad_value_is_told_again_when_it_changes(watched):
    for text in (b"x", b"y", b"y", b"x"):
        watched.put("10.5.1.0-24", text)
    assert len(watched.view.complaints()) == 3


def test_what_was_gone_is_told_again_when_it_is_back(watched):
    watched.put("garbage", b"x")
    watched.etcd.delete(key("garbage"))
    watched.list()
    watched.put("garbage", b"x")
    assert len(watched.view.complaints()) == 2


def test_a_lease_that_turns_bad_goes_and_comes_back_when_it_is_good(watched):
    watched.put("10.5.1.0-24", value(7))
    watched.settled()
    watched.put("10.5.1.0-24", b"x")
    assert watched.settled()
    assert watched.subnets() == []
    watched.put("10.5.1.0-24", value(7))
    assert watched.settled()
    assert watched.subnets() == ["10.5.1.0/24"]


def test_two_leases_with_one_public_ip_are_both_in_force(watched):
    """So has a node that was given another subnet while its old key still lives."""
    watched.put("10.5.2.0-24", value(7))
    watched.put("10.5.1.0-24", value(7))
    watched.settled()
    assert watched.subnets() == ["10.5.1.0/24", "10.5.2.0/24"]
    watched.put("10.5.3.0-24", value(8))
    watched.list()
    watched.settled()
    [told] = watched.view.complaints()
    assert told == (
        "192.0.2.7 is the public IP of /coreos.com/network/subnets/10.5.2.0-24 and "
        "/coreos.com/network/subnets/10.5.1.0-24"
    )
    watched.delete("10.5.2.0-24")
    watched.settled()
    assert watched.subnets() == ["10.5.1.0/24", "10.5.3.0/24"]
    watched.put("10.5.2.0-24", value(7))
    watched.settled()
    assert len(watched.view.complaints()) == 1, "of the younger, which is the other one now"
    watched.put("10.5.2.0-24", value(9))
    watched.settled()
    watched.put("10.5.2.0-24", value(7))
    watched.settled()
    assert len(watched.view.complaints()) == 1


@pytest.mark.parametrize("younger", ["10.5.0.0-22", "10.5.2.0-25"])
def test_of_two_that_overlap_the_older_counts(watched, younger):
    watched.put("10.5.2.0-24", value(7))
    watched.put(younger, value(8))
    watched.settled()
    assert watched.subnets() == ["10.5.2.0/24"]
    [told] = watched.view.complaints()
    assert told == (
        f"left out: /coreos.com/network/subnets/{younger}: it overlaps "
        "/coreos.com/network/subnets/10.5.2.0-24, which is older"
    )
    watched.put("10.5.9.0-24", value(9))
    watched.list()
    watched.settled()
    assert watched.view.complaints() == []
    watched.delete("10.5.2.0-24")
    watched.settled()
    assert watched.subnets() == sorted([younger.replace("-", "/"), "10.5.9.0/24"])


def test_ours_counts_however_young_it_is(watched):
    watched.etcd.put(key("10.5.1.0-24"), value(1))  # our public IP, the key of an earlier subnet of ours
    watched.etcd.put(key("10.5.200.0-24"), value(7))
    watched.etcd.put(OWN_KEY, value(1))
    watched.list()
    watched.settled()
    assert watched.view.leases == (OWN,)
    assert [told.partition("subnets/")[2] for told in watched.view.complaints()] == [
        "10.5.1.0-24: its public IP 192.0.2.1 is ours",
        "10.5.200.0-24: it overlaps /coreos.com/network/subnets/10.5.200.0-24&fc00:0:0:200::-64, which is ours",
    ]


def test_ours_stays_as_it_was_given(watched):
    watched.do(watched.etcd.put(OWN_KEY, b"x"))
    assert not watched.settled()
    watched.do(watched.etcd.delete(OWN_KEY))
    assert not watched.settled()
    assert watched.view.leases == (OWN,)
    assert watched.view.complaints() == []


def test_where_only_ipv6_overlaps_ipv4_stays(watched):
    watched.put("10.5.1.0-24&fc00:0:0:1::-64", value(7))
    watched.put("10.5.2.0-24&fc00:0:0:1::-64", value(8))
    watched.settled()
    assert {str(it.subnet): it.ipv6_subnet is not None for it in watched.view.leases if it != OWN} == {
        "10.5.1.0/24": True,
        "10.5.2.0/24": False,
    }
    [told] = watched.view.complaints()
    assert "its IPv6 subnet overlaps /coreos.com/network/subnets/10.5.1.0-24&fc00:0:0:1::-64, which is older" in told


def test_an_ipv6_subnet_that_is_not_the_networks_is_none(watched):
    watched.put("10.5.1.0-24&fd00::-64", value(7))
    watched.settled()
    assert [it.ipv6_subnet for it in watched.view.leases if it != OWN] == [None]
