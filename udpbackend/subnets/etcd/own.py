"""Writing our lease to etcd: as a new key, or over the one we have. Each is one transaction that may be lost.

Owns etcd's lease objects: none is left behind without a key, and the one a key has is renewed, not replaced. It must
not know why a subnet was chosen.

A key is unique, a subnet is not: `10.5.3.0-24&fc00:0:0:1::-64` and `10.5.3.0-24&fc00:0:0:2::-64` are two keys, and so
are subnets of different lengths. So whoever has written a new key looks at all keys again, and gives it up if an older
one overlaps it. Of two that overlap exactly one is older, and that one is never given up.
"""

from __future__ import annotations

import time

import msgspec

from udpbackend.model import Lease
from udpbackend.subnets.etcd.keys import Subnets
from udpbackend.subnets.etcd.store import Held, Listing, Store
from udpbackend.subnets.etcd.values import KeyValue

TTL_S = 86400
"""flannel's: a node that has been away for so long has lost its subnet."""

FOREVER = float("inf")


def boottime() -> float:
    """Seconds since the host started, those it slept included: no clock setting moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Own(msgspec.Struct, frozen=True):
    """Our lease as it stands in etcd."""

    lease: Lease
    key: bytes
    value: bytes
    mod_revision: int
    lease_id: int
    """Of etcd's lease; 0: the key stays, since it is a reservation."""
    expires: float
    """When it ends unless it is renewed, by `boottime`; for a reservation never."""


def rival(listing: Listing, mine: KeyValue, lease: Lease) -> Held | None:
    """An older lease that overlaps `lease`, which stands at the key `mine`."""
    return next(
        (
            other
            for other in listing.held
            if other.kv.key != mine.key
            and other.kv.create_revision < mine.create_revision
            and any(one.overlaps(two) for one in lease.subnets for two in other.lease.subnets)
        ),
        None,
    )


class Writer:
    """Raises RegistryError."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def create(self, subnets: Subnets, value: bytes, lease_id: int = 0) -> Own | None:
        """Claims subnets that were free a moment ago; None if somebody was faster.

        `lease_id`: a lease of ours that is alive and without a key; 0: a new one is granted.
        """
        client, began = self.store.client, boottime()
        lease_id = lease_id or await client.lease_grant(TTL_S)
        key = self.store.keys.key(subnets)
        outcome = await client.put_if(key, value, lease_id, 0)
        if outcome.succeeded:
            lease = self.store.keys.lease(key, value)
            kv = KeyValue(key, value, outcome.revision, outcome.revision, 1, lease_id)
            if not rival(await self.store.leases(), kv, lease):
                return Own(lease, key, value, outcome.revision, lease_id, began + TTL_S)
        await client.lease_revoke(lease_id)  # and the key with it
        return None

    async def retake(self, held: Held, value: bytes) -> Own | None:
        """Makes a key that is ours say `value` and live for another TTL_S; None if somebody has changed it meanwhile.

        A reservation stays one. A key that says so already is not written: its watchers have nothing to learn.
        """
        client, kv, began = self.store.client, held.kv, boottime()
        lease_id, revision = kv.lease, kv.mod_revision
        if lease_id and await client.lease_keep_alive(lease_id) < TTL_S:
            lease_id = await client.lease_grant(TTL_S)
        if (value, lease_id) != (kv.value, kv.lease):
            outcome = await client.put_if(kv.key, value, lease_id, revision)
            revision = outcome.revision
            if not outcome.succeeded:
                if lease_id != kv.lease:
                    await client.lease_revoke(lease_id)
                return None
        lease = self.store.keys.lease(kv.key, value)
        return Own(lease, kv.key, value, revision, lease_id, began + TTL_S if lease_id else FOREVER)
