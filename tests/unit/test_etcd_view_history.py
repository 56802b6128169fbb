"""Whatever came before, the leases are what a fresh list would give; after a reset nobody is dropped too early."""

import pytest
from etcd_played import OWN, Watched, fresh, key, value
from hypothesis import given, settings
from hypothesis import strategies as st

from udpbackend.subnets.etcd.rivals import Rivals
from udpbackend.subnets.etcd.view import GRACE_S


@pytest.fixture
def watched():
    made = Watched()
    made.settled()
    return made


def emptied(watched):
    watched.etcd.empty()


def restored(watched):
    watched.etcd.store.clear()
    watched.etcd.cluster_id += 1
    watched.etcd.revision += 100


def emptied_and_grown(watched):
    """By what others write: no number has gone back any more when we look again."""
    emptied(watched)
    watched.etcd.revision += 100


RESETS = {"emptied": emptied, "restored": restored, "emptied and grown": emptied_and_grown}


@pytest.mark.parametrize("loses", RESETS.values(), ids=RESETS)
def test_after_a_reset_the_missing_are_kept_for_a_while(watched, loses):
    watched.put("10.5.1.0-24", value(7))
    watched.put("10.5.2.0-24", value(8))
    watched.settled()
    loses(watched)
    assert watched.list()
    assert not watched.settled()
    assert watched.view.kept == 2
    watched.put("10.5.1.0-24", value(7))
    assert not watched.settled()
    watched.now += GRACE_S - 1
    assert watched.list() is None, "a list after it is no reset"
    assert not watched.settled()
    assert watched.subnets() == ["10.5.1.0/24", "10.5.2.0/24"]
    assert watched.view.unsettled
    watched.now += 1
    assert watched.settled()
    assert watched.subnets() == ["10.5.1.0/24"]
    assert watched.view.kept == 0


def test_a_reset_shows_even_when_etcd_has_overtaken_itself(watched):
    watched.put("10.5.1.0-24", value(7))
    watched.put("10.5.77.0-24", value(77))
    watched.settled()
    emptied(watched)
    watched.etcd.put(key("10.5.77.0-24"), value(77))
    for _ in range(20):
        watched.etcd.put(key("10.5.78.0-24"), value(78))
    assert "10.5.77.0-24 was changed at revision 2" in watched.list()
    watched.settled()
    assert watched.subnets() == ["10.5.1.0/24", "10.5.77.0/24", "10.5.78.0/24"]


def test_an_older_copy_that_has_grown_shows_by_what_it_never_knew(watched):
    watched.put("10.5.1.0-24", value(7))
    store, past, revision = dict(watched.etcd.store), dict(watched.etcd.past), watched.etcd.revision
    watched.put("10.5.2.0-24", value(8))
    watched.settled()
    watched.etcd.store, watched.etcd.past, watched.etcd.revision = store, past, revision + 100
    assert watched.list() == (
        f"it has another past: /coreos.com/network/subnets/10.5.2.0-24 was not so at revision {revision + 1}"
    )
    assert not watched.settled()
    assert watched.view.kept == 1


def test_what_is_missing_where_etcd_has_forgotten_its_past_is_taken_for_deleted(watched):
    watched.put("10.5.1.0-24", value(7))
    watched.settled()
    watched.etcd.delete(key("10.5.1.0-24"))
    watched.etcd.past.clear()
    assert watched.list() is None
    assert watched.settled()
    assert watched.subnets() == []


@pytest.mark.parametrize("taker", [("10.5.1.0-24", 8), ("10.5.0.0-22", 8), ("10.5.2.0-24", 7)])
def test_a_kept_lease_gives_way_for_good(watched, taker):
    watched.put("10.5.1.0-24", value(7))
    watched.settled()
    emptied(watched)
    watched.list()
    watched.settled()
    name, last_byte = taker
    watched.put(name, value(last_byte))
    assert watched.settled()
    assert watched.subnets() == [name.replace("-", "/")]
    assert watched.view.kept == 0
    watched.delete(name)
    watched.settled()
    assert watched.subnets() == []


def test_a_kept_lease_gives_its_ipv6_subnet_away(watched):
    watched.put("10.5.1.0-24&fc00:0:0:1::-64", value(7))
    watched.settled()
    emptied(watched)
    watched.list()
    watched.put("10.5.2.0-24&fc00:0:0:1::-64", value(8))
    watched.settled()
    assert {str(it.subnet): it.ipv6_subnet is not None for it in watched.view.leases if it != OWN} == {
        "10.5.1.0/24": False,
        "10.5.2.0/24": True,
    }
    assert watched.view.complaints() == []


def test_a_second_reset_does_not_lengthen_the_grace(watched):
    watched.put("10.5.1.0-24", value(7))
    watched.settled()
    for _ in range(3):
        emptied(watched)
        watched.etcd.cluster_id += 1
        watched.now += GRACE_S / 4
        assert watched.list()
        assert not watched.settled()
    watched.now += GRACE_S / 2
    assert watched.settled()
    assert watched.subnets() == []


def test_an_old_key_that_has_a_lease_for_us_at_last_stands_before_the_younger_ones():
    watched = Watched()
    watched.put("10.5.1.0-24", value(1))  # our own public IP: no lease for us
    watched.put("10.5.2.0-24", value(3))
    watched.settled()
    watched.put("10.5.1.0-24", value(2))
    watched.settled()
    assert watched.in_order() == ["10.5.1.0/24", "10.5.2.0/24"]


NAMES = [
    *(f"10.5.{i}.0-24" for i in (1, 2, 3, 200)),
    "10.5.0.0-22", "10.5.1.128-25", "10.5.1.0-24&fc00:0:0:1::-64", "10.5.2.0-24&fc00:0:0:1::-64",
    "10.5.3.0-24&fc00::-60", "10.6.0.0-24", "garbage",
]  # fmt: skip
VALUES = [value(1), value(2), value(3), value(4), value(2, backend_type="vxlan"), b"x"]
STEPS = st.one_of(
    st.tuples(st.sampled_from(["put", "put", "missed put"]), st.sampled_from(NAMES), st.sampled_from(VALUES)),
    st.tuples(st.sampled_from(["delete", "missed delete"]), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(["settle", "list"])),
)


def step(watched, what, *arguments):
    """Missed changes are made up for by a list, before anything else is seen."""
    if what == "settle":
        watched.settled()
    elif what == "list":
        watched.list()
    elif what.startswith("missed"):
        getattr(watched.etcd, what.split()[1])(key(arguments[0]), *arguments[1:])
        watched.list()
    else:
        getattr(watched, what)(*arguments)


@settings(max_examples=500)
@given(st.lists(STEPS, max_size=25))
def test_any_history_ends_in_what_a_fresh_list_gives(steps):
    watched = Watched()
    before = set()
    for each in steps:
        step(watched, *each)
        if each[0] == "settle":
            assert watched.view.leases == fresh(watched.etcd)
    watched.settled()
    before = watched.view.leases
    assert before == fresh(watched.etcd)
    watched.list()
    assert not watched.settled()


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=12), st.sampled_from(sorted(RESETS)), st.lists(STEPS, max_size=12))
def test_after_a_reset_nobody_is_dropped_and_the_grace_ends(before, how, after):
    watched = Watched()
    for each in before:
        step(watched, *each)
    watched.settled()
    had = set(watched.view.leases)
    RESETS[how](watched)
    watched.list()
    watched.settled()
    assert set(watched.view.leases) == had
    for each in after:
        step(watched, *each)
    watched.settled()
    now, right = set(watched.view.leases), set(fresh(watched.etcd))
    assert right <= now
    assert {lease.subnet for lease in now - right} <= {lease.subnet for lease in had}
    rivals = Rivals()
    for i, lease in enumerate(now):
        assert not rivals.overlapping(lease)
        assert not rivals.overlapping_ipv6(lease)
        rivals.add(b"%d" % i, lease)
    watched.now += GRACE_S
    watched.settled()
    assert set(watched.view.leases) == right
