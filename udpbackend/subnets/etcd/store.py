"""What stands in etcd for one network: its configuration and its leases, as values.

Owns the reading and the log lines about what cannot be read. Changes nothing.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from udpbackend.errors import ConfigError
from udpbackend.model import Lease, NetworkConfig, Prefix
from udpbackend.subnets.config import parse_config
from udpbackend.subnets.etcd.client import Client
from udpbackend.subnets.etcd.keys import Keys
from udpbackend.subnets.etcd.values import KeyValue

log = logging.getLogger(__name__)

AT_A_STRETCH = 200
"""So many leases are read in about 3 ms; then the loop gets its turn."""

REMEMBERED = 1024
"""Complaints that are not repeated; beyond that the oldest is forgotten, which costs at most an extra line."""


class Held(msgspec.Struct, frozen=True, gc=False):
    """A lease and the key it stands at."""

    lease: Lease
    kv: KeyValue


class Listing(msgspec.Struct, frozen=True):
    """All leases at one revision, in the order of their keys."""

    revision: int
    """A watch from `revision + 1` misses nothing."""
    cluster_id: int
    held: tuple[Held, ...]
    unreadable: tuple[Prefix, ...]
    """Subnets of keys whose value is no lease: nobody is reached there, and nobody may have them."""


class Store:
    """The part of etcd below `prefix`. Methods raise RegistryError."""

    def __init__(self, client: Client, prefix: str) -> None:
        self.client = client
        self.keys = Keys(prefix)
        self._complaints: dict[bytes, str] = {}

    async def config(self) -> NetworkConfig:
        """The network's configuration. Raises ConfigError as well."""
        kv = await self.client.get(self.keys.config)
        if kv is None:
            raise ConfigError(
                "flannel config not found in etcd store. Did you create your config using etcdv3 API? "
                f"({self.keys.config.decode()}: no such key)"
            )
        try:
            return parse_config(kv.value)
        except ConfigError as error:
            raise ConfigError(f"{self.keys.config.decode()}: {error}") from None

    async def leases(self) -> Listing:
        """All leases there are."""
        found = await self.client.get_prefix(self.keys.subnets)
        held, unreadable = list[Held](), list[Prefix]()
        for i, kv in enumerate(found.items):
            if one := self.read(kv):
                held.append(one)
            else:
                unreadable.extend(subnet for subnet in self.keys.parse(kv.key) or () if subnet)
            if i % AT_A_STRETCH == 0:
                await asyncio.sleep(0)
        return Listing(found.revision, found.cluster_id, tuple(held), tuple(unreadable))

    def read(self, kv: KeyValue) -> Held | None:
        """The lease at a key; None, and one line in the log for each key, if it is none."""
        try:
            return Held(self.keys.lease(kv.key, kv.value), kv)
        except ConfigError as error:
            if self._complaints.pop(kv.key, None) != str(error):
                log.warning("passed over: %s", error)
            self._complaints[kv.key] = str(error)
            if len(self._complaints) > REMEMBERED:
                del self._complaints[next(iter(self._complaints))]
            return None
