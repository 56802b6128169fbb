"""The leases as we see them: a fold of what etcd lists and of the changes it tells.

Pure: no clock, no connection. A change costs microseconds, however many leases there are, and one that leaves a lease
as it was (a renewal) costs less still and shows nowhere. In force is what a fresh list would give, by these rules:

- Our own lease is in force as it was given to us: what becomes of its key is decided elsewhere.
- A key or value that cannot be read is left out and complained of once, and again only when it changes.
- Of two subnets that overlap, which neither etcd nor flanneld keeps apart, the one whose key is older is in force.
  Where only the IPv6 subnets overlap, the younger keeps its IPv4 subnet.
- Leases stand in the order of their keys' age, those first whose key is gone. So a later one is a newer word.
- Two leases may have one public IP: so a node has that moved to another subnet while its old key still lives, and both
  lead to it. It is complained of, since it may also be two nodes behind one address. With our own public IP a lease is
  left out: what is sent there would come back to us.
- After a *reset* (seen.py says what shows it) a lease that is missing says nothing of its node. It stays in force for
  GRACE_S, unless its key comes back or another lease takes its subnet or public IP.
"""

from __future__ import annotations

import msgspec

from udpbackend.errors import ConfigError
from udpbackend.model import Lease, NetworkConfig
from udpbackend.subnets.etcd.keys import Keys
from udpbackend.subnets.etcd.rivals import Rivals
from udpbackend.subnets.etcd.seen import Seen
from udpbackend.subnets.etcd.values import Event, KeyValue, Range, text

GRACE_S = 24 * 3600.0
"""How long a lease outlives a reset.

Our own nodes put their key back within seconds, but flanneld only when it renews its lease: up to 24 hours later, less
its margin. And a node that has died meanwhile is kept no longer than its lease would have kept it without the reset.
"""


class _Entry(msgspec.Struct):
    """What stands at one key, or stood there before a reset."""

    value: bytes
    create_revision: int
    mod_revision: int
    lease: Lease | None
    """None: it cannot be read, or is our own."""
    kept_until: float | None = None
    """When a lease whose key a reset has made disappear is given up; None for a key that is there."""

    def stands_as(self, kv: KeyValue) -> bool:
        """Whether nothing but the time of its last renewal tells the two apart."""
        return self.kept_until is None and (self.value, self.create_revision) == (kv.value, kv.create_revision)


class View:
    """The leases of one network: `listed` and `fold` take in what etcd says, `settle` brings `leases` up to date."""

    def __init__(self, keys: Keys, config: NetworkConfig, own: Lease) -> None:
        self.revision = 0
        """Of the last list or change, as etcd counts; goes back with a reset."""
        self._keys = keys
        self._config = config
        self._own = own
        self._own_key = keys.key((own.subnet, own.ipv6_subnet))
        self._entries: dict[bytes, _Entry] = {}
        self._kept: set[bytes] = set()
        self._rivals = self._ours_alone()
        self._in_force: dict[bytes, Lease] = {}
        self._cluster_id = 0
        self._listed = 0
        self._changed: set[bytes] = set()
        self._contested = True
        """Whether a lease that is in another's way has come, changed or gone: then all have to be gone through."""
        self._told: dict[tuple[bytes, str], str] = {}
        self._complaints: list[str] = []

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Those in force as of the last `settle`, our own among them, the older key before the younger."""
        return tuple(self._in_force.values())

    @property
    def kept(self) -> int:
        """How many leases are in force although their key is gone."""
        return len(self._kept)

    @property
    def unsettled(self) -> bool:
        """Whether `settle` may find something to do."""
        return bool(self._changed or self._contested or self._kept)

    def complaints(self) -> list[str]:
        """What was left out since the last call, and why: lines for the log."""
        said, self._complaints = self._complaints, []
        return said

    def fold(self, event: Event) -> None:
        """Takes in a change; nothing happens if the last list included it."""
        kv = event.kv
        if kv.mod_revision <= self._listed:
            return
        self.revision = kv.mod_revision
        before = self._entries.get(kv.key)
        if event.kind == "DELETE":
            self._told.pop((kv.key, "read"), None)
            self._remove(kv.key)
        elif before is not None and before.stands_as(kv):
            before.mod_revision = kv.mod_revision
        else:
            self._remove(kv.key)
            self._enter(kv, before)
            # A key that was deleted and comes back is the youngest of all, and does not stand where it stood. One that
            # had no lease for us until now is older than where it would be put.
            moves = (before is None) == (kv.key in self._in_force)
            self._contested = self._contested or (moves and self._entries[kv.key].lease is not None)

    def wants_past(self, listing: Range) -> bool:
        """Whether keys that a fresh list lacks may be lost, not deleted: only what etcd says of `revision` tells."""
        seen = self._seen()
        return seen is not None and seen.reset_in(listing) is None and seen.lacks_in(listing)

    def listed(self, listing: Range, now: float, past: Range | None = None) -> str | None:
        """Takes in a fresh list, at `now` seconds of any clock; what shows a reset, if there was one.

        `past`: what etcd says today of `revision`, where it was wanted and is not forgotten.
        """
        seen = self._seen()
        reset = seen.reset_in(listing, past) if seen else None
        before, self._entries, self._rivals, self._kept = self._entries, {}, self._ours_alone(), set()
        for kv in listing.items:
            self._enter(kv, before.get(kv.key))
        for key, entry in before.items():
            if entry.lease is not None and key not in self._entries and (reset or entry.kept_until is not None):
                entry.kept_until = entry.kept_until or now + GRACE_S
                self._entries[key] = entry
                self._kept.add(key)
                self._stake(key, entry.lease)
        self._told = {(key, about): text for (key, about), text in self._told.items() if key in self._entries}
        self._cluster_id, self._listed, self.revision = listing.cluster_id, listing.revision, listing.revision
        self._contested = True
        return reset

    def settle(self, now: float) -> bool:
        """Brings `leases` up to date; whether that has changed them. `now` is on the clock of `listed`."""
        for key in [key for key in self._kept if (self._entries[key].kept_until or 0) <= now]:
            self._remove(key)
        if self._contested:
            before, self._in_force = self._in_force, self._chosen()
            differs = before != self._in_force
        else:
            differs = self._follow()
        self._changed.clear()
        self._contested = False
        return differs

    def _ours_alone(self) -> Rivals:
        rivals = Rivals()
        rivals.add(self._own_key, self._own)
        return rivals

    def _seen(self) -> Seen | None:
        if not self._listed:
            return None
        there = {key: it.mod_revision for key, it in self._entries.items() if it.kept_until is None}
        return Seen(self._cluster_id, self.revision, there)

    def _read(self, kv: KeyValue) -> Lease | None:
        """The lease that stands there, if there is one for us; a complaint if it cannot be read."""
        if kv.key == self._own_key:
            return None
        network, ipv6 = self._config.network, self._config.ipv6
        try:
            lease = self._keys.lease(kv.key, kv.value)
        except ConfigError as error:
            self._complain(kv.key, "read", f"left out: {error}")
            return None
        if not network.contains(lease.subnet):
            self._complain(kv.key, "read", f"left out: {text(kv.key)}: expected a subnet inside the Network {network}")
            return None
        if lease.public_ip == self._own.public_ip:
            self._complain(kv.key, "read", f"left out: {text(kv.key)}: its public IP {lease.public_address} is ours")
            return None
        self._told.pop((kv.key, "read"), None)
        if lease.ipv6_subnet and not (ipv6 and ipv6.network.contains(lease.ipv6_subnet)):
            return msgspec.structs.replace(lease, ipv6_subnet=None)
        return lease

    def _enter(self, kv: KeyValue, before: _Entry | None) -> None:
        same = before is not None and before.value == kv.value
        lease = before.lease if before is not None and same else self._read(kv)
        self._entries[kv.key] = _Entry(kv.value, kv.create_revision, kv.mod_revision, lease)
        if lease is not None:
            self._stake(kv.key, lease)

    def _stake(self, key: bytes, lease: Lease) -> None:
        self._contested = self._contested or self._rivals.any(lease)
        self._rivals.add(key, lease)
        self._changed.add(key)

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None and entry.lease is not None:
            self._kept.discard(key)
            self._rivals.remove(key, entry.lease)
            self._contested = self._contested or self._rivals.any(entry.lease)
            self._changed.add(key)

    def _follow(self) -> bool:
        """Takes what has changed as it is: none of it is in another's way. Whether that makes a difference."""
        differs = False
        for key in sorted(self._changed, key=self._age):
            entry = self._entries.get(key)
            lease = entry.lease if entry is not None else None
            differs = differs or lease != self._in_force.get(key)
            if lease is not None:
                self._in_force[key] = lease
            else:
                self._in_force.pop(key, None)
        return differs

    def _chosen(self) -> dict[bytes, Lease]:
        """All that may be in force beside each other: ours, then the older key before the younger, the kept ones last.

        A kept lease that must give way is given up for good; those that stay stand first, as the oldest.
        """
        chosen, taken = {self._own_key: self._own}, self._ours_alone()
        for key in sorted(self._entries, key=self._rank):
            lease = self._entries[key].lease
            if lease is None:
                continue
            same, rival = taken.same_public_ip(lease), taken.overlapping(lease)
            if key in self._kept and (rival or (same and same not in self._kept)):
                self._remove(key)
            elif rival:
                self._complain(key, "rival", f"left out: {text(key)}: it overlaps {self._older(rival)}")
            else:
                chosen[key] = lease = self._without_taken_ipv6(key, lease, taken)
                taken.add(key, lease)
                self._tell_sharing(key, lease, same)
        if not self._kept:
            return chosen
        kept = {key: lease for key, lease in chosen.items() if key in self._kept}
        return kept | {key: lease for key, lease in chosen.items() if key not in kept}

    def _without_taken_ipv6(self, key: bytes, lease: Lease, taken: Rivals) -> Lease:
        rival = taken.overlapping_ipv6(lease)
        if rival is None:
            self._told.pop((key, "rival"), None)
            return lease
        if key not in self._kept:
            self._complain(key, "rival", f"IPv6 left out: {text(key)}: its IPv6 subnet overlaps {self._older(rival)}")
        return msgspec.structs.replace(lease, ipv6_subnet=None)

    def _tell_sharing(self, key: bytes, lease: Lease, other: bytes | None) -> None:
        if other is None:
            self._told.pop((key, "sharing"), None)
        else:
            names = f"{text(other)} and {text(key)}"
            self._complain(key, "sharing", f"{lease.public_address} is the public IP of {names}")

    def _older(self, key: bytes) -> str:
        return f"{text(key)}, which is {'ours' if key == self._own_key else 'older'}"

    def _rank(self, key: bytes) -> tuple[bool, int, bytes]:
        entry = self._entries[key]
        return entry.kept_until is not None, entry.create_revision, key

    def _age(self, key: bytes) -> int:
        entry = self._entries.get(key)
        return entry.create_revision if entry is not None else 0

    def _complain(self, key: bytes, about: str, text: str) -> None:
        if self._told.get((key, about)) != text:
            self._told[key, about] = text
            self._complaints.append(text)
