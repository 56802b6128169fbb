"""An etcd that is only a table with its counters, and a view of it that sees what it is shown.

Owns the way etcd counts. Knows none of the view's rules.
"""

from dataclasses import dataclass, field

from udpbackend.model import Attributes, Lease, Prefix
from udpbackend.subnets.config import parse_config
from udpbackend.subnets.etcd.keys import Keys, encode
from udpbackend.subnets.etcd.values import Event, KeyValue, Range
from udpbackend.subnets.etcd.view import View

KEYS = Keys("/coreos.com/network")
CONFIG = parse_config('{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48"}')
OWN = Lease(Prefix.parse("10.5.200.0/24"), 0xC0000201, ipv6_subnet=Prefix.parse("fc00:0:0:200::/64"))
OWN_KEY = KEYS.key((OWN.subnet, OWN.ipv6_subnet))


def key(name):
    return KEYS.subnets + name.encode()


def value(last_byte, **more):
    return encode(Attributes(f"192.0.2.{last_byte}", **more))


@dataclass
class Etcd:
    """What etcd holds, with its way of counting."""

    revision: int = 1
    cluster_id: int = 7
    store: dict = field(default_factory=dict)
    past: dict = field(default_factory=lambda: {0: {}})
    """The store after each change; empty: forgotten."""

    def put(self, name, text):
        self.revision += 1
        before = self.store.get(name)
        created, version = (before.create_revision, before.version + 1) if before else (self.revision, 1)
        self.store[name] = KeyValue(name, text, self.revision, created, version, 99)
        self.past[self.revision] = dict(self.store)
        return Event("PUT", self.store[name])

    def delete(self, name):
        if self.store.pop(name, None) is None:
            return None
        self.revision += 1
        self.past[self.revision] = dict(self.store)
        return Event("DELETE", KeyValue(name, b"", self.revision, 0, 0, 0))

    def empty(self):
        self.revision, self.store, self.past = 1, {}, {0: {}}

    def list(self):
        return Range(self.revision, self.cluster_id, tuple(self.store[name] for name in sorted(self.store)))

    def at(self, revision):
        """The list of then; None if it is forgotten."""
        if not self.past:
            return None
        store = self.past[max(it for it in self.past if it <= revision)]
        return Range(revision, self.cluster_id, tuple(store.values()))


class Watched:
    """An etcd and the view of it; `do` is seen by the view, what is done to `etcd` itself is not."""

    def __init__(self):
        self.etcd = Etcd()
        self.view = View(KEYS, CONFIG, OWN)
        self.now = 1000.0
        self.list()

    def do(self, event):
        if event is not None:
            self.view.fold(event)

    def put(self, name, text):
        self.do(self.etcd.put(key(name), text))

    def delete(self, name):
        self.do(self.etcd.delete(key(name)))

    def list(self):
        """What shows a reset, as for whoever follows etcd."""
        listing = self.etcd.list()
        past = self.etcd.at(self.view.revision) if self.view.wants_past(listing) else None
        return self.view.listed(listing, self.now, past)

    def settled(self):
        """Whether anything has changed."""
        return self.view.settle(self.now)

    def subnets(self):
        """Of the others' leases in force."""
        return sorted(str(lease.subnet) for lease in self.view.leases if lease != OWN)

    def in_order(self):
        """The same, as they stand."""
        return [str(lease.subnet) for lease in self.view.leases if lease != OWN]


def fresh(etcd):
    """What somebody sees who comes now, in that order."""
    view = View(KEYS, CONFIG, OWN)
    view.listed(etcd.list(), 0.0)
    view.settle(0.0)
    return view.leases
