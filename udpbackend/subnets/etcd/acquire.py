"""Which subnet we take when we start: our own again, else the one of the last run, else a free one.

Owns the choice, by flannel's order, and its repetition when somebody was faster. Writing is own.py's business.

A key without a lease is a reservation: an administrator has given this subnet to the node with this public IP. Ours is
used and stays as it is; nobody else's is ever taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from ipaddress import IPv4Address
from random import Random, SystemRandom

from udpbackend.errors import RegistryError
from udpbackend.model import LONGEST_SUBNET, Attributes, Lease, NetworkConfig, Prefix
from udpbackend.subnets.allocate import choose, fits
from udpbackend.subnets.etcd.keys import encode
from udpbackend.subnets.etcd.own import Own, Writer, rival
from udpbackend.subnets.etcd.store import Held, Listing

log = logging.getLogger(__name__)

TRIES = 50
"""So often somebody may be faster. A hundred subnets are in the draw each time, so this serves thousands of nodes that
start at once."""

LONGEST_PAUSE_S = 2.0


class Acquirer:
    """Finds and claims this host's subnets in one network."""

    def __init__(self, writer: Writer, config: NetworkConfig, random: Random | None = None) -> None:
        self._writer = writer
        self._store = writer.store
        self._config = config
        self._random = random or SystemRandom()

    async def held(self, public_ip: IPv4Address) -> Lease | None:
        """The lease that `acquire` would take again; changes nothing. Raises RegistryError."""
        found = self._usable(await self._store.leases(), public_ip)
        return found.lease if found else None

    async def acquire(self, attributes: Attributes, previous: Collection[Prefix] = ()) -> Own:
        """Our lease, written to etcd; `previous`: subnets to be preferred to any other, if they are free.

        Raises RegistryError, or ConfigError when there is no subnet left.
        """
        wanted = tuple(previous)
        for attempt in range(1, TRIES + 1):
            listing = await self._store.leases()
            found = self._usable(listing, attributes.public_ip)
            if found:
                own = await self._writer.retake(found, encode(attributes))
                wanted = found.lease.subnets  # somebody has changed the key; if it is gone, we take the subnet again
            else:
                own = await self._claim_free(listing, attributes, wanted)
            if own:
                log.info("%s %s for %s", "keeping" if found else "took", _shown(own.lease), attributes.public_ip)
                _tell_another_subnet(listing, previous, own.lease)
                return own
            log.info("somebody was faster: trying again (%d of %d)", attempt, TRIES)
            await asyncio.sleep(self._random.uniform(0, min(LONGEST_PAUSE_S, 0.005 * 2**attempt)))
        raise RegistryError(f"etcd: no subnet for {attributes.public_ip} in {TRIES} tries: somebody was always faster")

    async def _claim_free(self, listing: Listing, attributes: Attributes, wanted: Collection[Prefix]) -> Own | None:
        taken = list(listing.unreadable)
        for held in listing.held:
            if held.lease.public_ip == int(attributes.public_ip) and held.kv.lease:
                log.info("giving up %s: the network's configuration has another idea of it", _shown(held.lease))
                if not await self._store.client.delete_if(held.kv.key, held.kv.mod_revision):
                    return None
            else:
                taken.extend(held.lease.subnets)
        subnets = choose(self._config, taken, wanted, self._random)
        return await self._writer.create(subnets, encode(attributes))

    def _usable(self, listing: Listing, public_ip: IPv4Address) -> Held | None:
        """What is ours already and may stay so, reservations first."""
        ours = [held for held in listing.held if held.lease.public_ip == int(public_ip)]
        ours.sort(key=lambda held: held.kv.lease != 0)
        for held in ours:
            if held.kv.lease:
                if self._fits(held.lease) and not rival(listing, held.kv, held.lease):
                    return held
            elif self._may_be_reserved(held.lease):
                return held
            else:
                log.warning("the reservation of %s for us is of no use: not inside the network", _shown(held.lease))
        return None

    def _fits(self, lease: Lease) -> bool:
        families = len(lease.subnets) == (2 if self._config.ipv6 else 1)
        return families and all(fits(self._config, subnet) for subnet in lease.subnets)

    def _may_be_reserved(self, lease: Lease) -> bool:
        """SubnetMin, SubnetMax and SubnetLen bind what is given out by itself, not what an administrator gives."""
        networks = (self._config.network, self._config.ipv6.network if self._config.ipv6 else None)
        return all(
            network is not None and network.contains(subnet) and subnet.bits <= LONGEST_SUBNET[subnet.version]
            for network, subnet in zip(networks, lease.subnets, strict=False)
        )


def _tell_another_subnet(listing: Listing, previous: Collection[Prefix], lease: Lease) -> None:
    """Pods that were made before keep addresses that this host is no longer known for: that is worth a line."""
    before = next((it for it in previous if it.version == lease.subnet.version), lease.subnet)
    if before == lease.subnet:
        return
    holder = next((it.lease for it in listing.held if before in it.lease.subnets), None)
    why = "it is no subnet of the network as it is configured, or another lease overlaps it"
    if holder is not None and holder.public_ip != lease.public_ip:
        why = f"the lease of {before} is that of {holder.public_address}; this host is {lease.public_address} now"
    elif holder is not None:
        why = f"this host has both leases, and {lease.subnet} is the one that counts"
    log.warning(
        "this host had %s in its last run and has %s from now on (%s): pods that it has already are not reached at "
        "their addresses until they are made again",
        before, lease.subnet, why,
    )  # fmt: skip


def _shown(lease: Lease) -> str:
    return " and ".join(str(subnet) for subnet in lease.subnets)
