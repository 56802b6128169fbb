"""What is wanted against what there is: whatever the kernel has, the plan makes it what is wanted, and does no more."""

import errno

from hypothesis import given
from hypothesis import strategies as st

from udpbackend.host.entries import AF_BRIDGE, GET_ROUTE, Forward, Neighbour, Route
from udpbackend.host.reconcile import Scope, Seen, Way, plan, reconcile
from udpbackend.model import Prefix

DEVICE = 7
NETWORK = Prefix.parse("10.5.0.0/16")
SMALL = st.integers(0, 3)
ROUTES = st.builds(
    lambda subnet, gateway, link, onlink: Route(base(subnet), 24, bytes((10, 5, 0, gateway)), link, onlink, metric=0),
    SMALL, SMALL, st.sampled_from([DEVICE, 3]), st.booleans(),
)  # fmt: skip
NEIGHBOURS = st.builds(lambda subnet, mac: Neighbour(base(subnet), bytes((2, 0, 0, 0, 0, mac)), DEVICE), SMALL, SMALL)
FORWARDS = st.builds(
    lambda mac, outer, elsewhere: Forward(bytes((2, 0, 0, 0, 0, mac)), bytes((192, 0, 2, outer)), DEVICE, elsewhere),
    SMALL, SMALL, st.booleans(),
)  # fmt: skip


def base(subnet):
    return bytes((10, 5, subnet, 0))


def way(subnet, mac=None, outer=None):
    if mac is None:
        return Way(Route(base(subnet), 24, bytes((192, 0, 2, outer)), 3, onlink=False, metric=0))
    hardware = bytes((2, 0, 0, 0, 0, mac))
    needs = (Neighbour(base(subnet), hardware, DEVICE), Forward(hardware, bytes((192, 0, 2, outer)), DEVICE))
    return Way(Route(base(subnet), 24, base(subnet), DEVICE, onlink=True, metric=0), needs)


WAYS = st.dictionaries(SMALL, st.tuples(st.none() | SMALL)).map(
    lambda found: [way(subnet, mac, subnet if mac is None else mac) for subnet, (mac,) in found.items()]
)
SEEN = st.builds(
    lambda routes, neighbours, forwards: Seen(
        list({(it.base, it.metric): it for it in routes}.values()),
        list({it.address: it for it in neighbours}.values()),
        list({it.mac: it for it in forwards}.values()),
    ),
    st.lists(ROUTES), st.lists(NEIGHBOURS), st.lists(FORWARDS),
)  # fmt: skip


def key(entry):
    """What the kernel has one of."""
    if isinstance(entry, Route):
        return entry.base, entry.bits, entry.metric
    return ("neighbour", entry.address) if isinstance(entry, Neighbour) else ("forward", entry.mac)


class Kernel:
    """In the place of a Bulk: keeps entries as the kernel does, refuses some, and notes the order of requests."""

    def __init__(self, seen, ways, refuses=()):
        known = {*seen.routes, *seen.neighbours, *seen.forwards, *entries_of(ways).values()}
        self.has = {key(it): it for it in (*seen.routes, *seen.neighbours, *seen.forwards)}
        self.refuses = refuses
        self.log = []
        self._meant = {request: it for it in known for request in (it.add(), it.delete())}

    def dump(self, request):
        kind = Route if request.kind == GET_ROUTE else Forward if request.body[0] == AF_BRIDGE else Neighbour
        return [it.add().body for it in self.has.values() if isinstance(it, kind)]

    def exchange(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        entry, added = self._meant[request], request == self._meant[request].add()
        self.log.append(("add" if added else "delete", entry))
        if not added:
            return b"" if self.has.pop(key(entry), None) else OSError(errno.ESRCH, "No such process")
        if entry in self.refuses:
            return OSError(errno.ENETUNREACH, "Network is unreachable")
        self.has[key(entry)] = entry
        return b""


def follow(seen, ways):
    """The kernel after the plan's requests."""
    has = {key(it): it for it in (*seen.routes, *seen.neighbours, *seen.forwards)}
    found = plan(ways, seen)
    for it in found.gone:
        del has[key(it)]
    for _, it in (*found.missing, *found.routes):
        has[key(it)] = it
    for it in found.stale:
        del has[key(it)]
    return has, found


def entries_of(ways):
    return {key(it): it for one in ways for it in (one.route, *(one.needs or ()))}


@given(SEEN, WAYS)
def test_after_the_plan_the_kernel_has_what_is_wanted(seen, ways):
    has, _ = follow(seen, ways)
    assert has == entries_of(ways)


@given(WAYS)
def test_where_nothing_differs_nothing_is_done(ways):
    there = entries_of(ways).values()
    found = plan(ways, Seen(*([it for it in there if isinstance(it, kind)] for kind in (Route, Neighbour, Forward))))
    assert [found.gone, found.missing, found.routes, found.stale] == [[], [], [], []]


@given(SEEN, WAYS)
def test_what_is_there_already_is_not_asked_for_again(seen, ways):
    _, found = follow(seen, ways)
    there = {*seen.routes, *seen.neighbours, *seen.forwards}
    assert all(it not in there for _, it in (*found.missing, *found.routes))
    assert all(it in there for it in (*found.gone, *found.stale))
    assert {one.route for one in ways} - {it for _, it in found.routes} <= there


def test_the_order_leaves_no_route_without_what_it_needs():
    """What is needed first, then routes; routes to what is gone first of all, what they needed last."""
    old, new = way(1, 1, 1), way(2, 2, 2)
    kernel = Kernel(Seen([old.route], [old.needs[0]], [old.needs[1]]), [old, new])
    outcome = reconcile(kernel, Scope(NETWORK, DEVICE), [new])
    assert kernel.log == [
        ("delete", old.route),
        *(("add", need) for need in new.needs),
        ("add", new.route),
        *(("delete", need) for need in old.needs),
    ]
    assert outcome.words() == (
        "added 1 neighbour entry, 1 forwarding entry, 1 route",
        "removed 1 route, 1 neighbour entry, 1 forwarding entry",
    )


@given(WAYS, st.data())
def test_a_refused_way_leaves_nothing_of_itself(ways, data):
    every = [it for one in ways for it in (one.route, *(one.needs or ()))]
    refused = data.draw(st.sets(st.sampled_from(every))) if every else set()
    kernel = Kernel(Seen(), ways, refused)
    outcome = reconcile(kernel, Scope(NETWORK, DEVICE), ways)
    bad = {place for place, one in enumerate(ways) if {one.route, *(one.needs or ())} & refused}
    good = [one for place, one in enumerate(ways) if place not in bad]
    assert outcome.refused.keys() == bad
    assert kernel.has == entries_of(good)
    assert set(outcome.added) == set(entries_of(good).values())
    assert all("cannot add the " in error.strerror for error in outcome.refused.values())


def test_a_refused_way_keeps_what_another_needs():
    """One node with two subnets for a while."""
    one, other = way(1, 1, 1), way(2, 1, 1)
    kernel = Kernel(Seen(), [one, other], {other.route})
    reconcile(kernel, Scope(NETWORK, DEVICE), [one, other])
    assert kernel.has == entries_of([one])


def test_what_is_outside_the_network_or_of_another_device_is_left_alone():
    there = [
        Route(bytes((10, 6, 0, 0)), 24, bytes((192, 0, 2, 1)), 3, onlink=False, metric=0),
        Route(bytes((10, 0, 0, 0)), 8, bytes((192, 0, 2, 1)), 3, onlink=False, metric=0),
        Neighbour(bytes((192, 0, 2, 9)), b"123456", DEVICE),
        Neighbour(base(3), b"123456", DEVICE + 1),
        Forward(b"123456", bytes(4), DEVICE + 1),
    ]
    kernel = Kernel(Seen(there[:2], there[2:4], there[4:]), [])
    assert reconcile(kernel, Scope(NETWORK, DEVICE), []).words() == ()
    assert set(kernel.has.values()) == set(there)


def test_one_change_is_told_in_full():
    kernel = Kernel(Seen(), [way(1, outer=9)])
    assert reconcile(kernel, Scope(NETWORK), [way(1, outer=9)]).words() == (
        "added the route 10.5.1.0/24 via 192.0.2.9",
    )
