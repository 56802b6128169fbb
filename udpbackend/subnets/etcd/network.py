"""The network's configuration in etcd: waiting for a good one, and saying when it has become another.

As in flannel a missing or broken configuration is looked for again every second, and one that changes later is followed
by a restart only: packets are on their way by the old one.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from functools import partial

from udpbackend.errors import ConfigError
from udpbackend.model import NetworkConfig
from udpbackend.subnets.config import parse_config
from udpbackend.subnets.etcd.health import Health, persist
from udpbackend.subnets.etcd.store import Store
from udpbackend.subnets.etcd.values import KeyValue, Range
from udpbackend.subnets.etcd.watch import follow
from udpbackend.subnets.manager import Check

log = logging.getLogger(__name__)

PAUSE_S = 1.0

KEYS = {
    "Network": "network",
    "SubnetLen": "subnet_len",
    "IPv6Network": "ipv6",
    "Backend": "backend",
    "EnableNFTables": "nftables",
}
"""What is settled at the start: flannel's key, and our field."""


async def await_config(store: Store, health: Health, check: Check) -> NetworkConfig:
    """The configuration, as soon as there is a good one, its backend's part included."""
    tell = partial(health.tell, "Couldn't fetch network config")

    async def good() -> NetworkConfig:
        config = await store.config()
        check(config)
        return config

    while True:
        try:
            return await persist(good, tell)
        except ConfigError as error:
            tell(error)
        await asyncio.sleep(PAUSE_S)


async def follow_config(store: Store, config: NetworkConfig, health: Health) -> None:
    """Says in `health` when etcd has another configuration than the one in use; until cancelled.

    That etcd is away is told by whoever follows the leases.
    """
    key = store.keys.config
    async with aclosing(follow(store.client, key, lambda _: None)) as told:
        async for said in told:
            if isinstance(said, Range):
                found = [next((kv for kv in said.items if kv.key == key), None)]
            else:
                found = [event.kv if event.kind == "PUT" else None for event in said.events if event.kv.key == key]
            for kv in found:
                health.tell("restart needed", _difference(key.decode(), config, kv))


def _difference(key: str, config: NetworkConfig, kv: KeyValue | None) -> ConfigError | None:
    """What is no longer as it was when we started."""
    if kv is None:
        return ConfigError(f"{key} is gone, and no node can start without it")
    try:
        new = parse_config(kv.value)
    except ConfigError as error:
        return ConfigError(f"{key}: {error}")
    changed = [name for name, field in KEYS.items() if getattr(new, field) != getattr(config, field)]
    return ConfigError(f"{key}: {', '.join(changed)} changed") if changed else None
