"""etcd as the daemon's registry: the parts of this package in the order in which the daemon needs them.

Owns what is done while etcd is away: waiting, trying again, and saying so. What stands in etcd, how a subnet is chosen,
written and kept, and how the others' leases are followed, each has a file of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from udpbackend.errors import LeaseLostError, RegistryError, RestartNeededError
from udpbackend.model import Attributes, Lease, NetworkConfig, Snapshot
from udpbackend.settings import Settings
from udpbackend.subnets.envfile import read_env, subnets_of
from udpbackend.subnets.etcd.access import Access
from udpbackend.subnets.etcd.acquire import Acquirer
from udpbackend.subnets.etcd.client import Client
from udpbackend.subnets.etcd.health import Health, persist
from udpbackend.subnets.etcd.judge import Judge
from udpbackend.subnets.etcd.network import await_config, follow_config
from udpbackend.subnets.etcd.own import Writer
from udpbackend.subnets.etcd.renew import Keeper
from udpbackend.subnets.etcd.store import Store
from udpbackend.subnets.etcd.view import View
from udpbackend.subnets.etcd.watch import Snapshots
from udpbackend.subnets.manager import Check, RegistryState

T = TypeVar("T")


def manager(settings: Settings) -> EtcdSubnets:
    """The registry that the --etcd flags lead to. Raises UsageError, HostError."""
    return EtcdSubnets(settings, Client(settings.etcd_endpoints, Access.of(settings)))


class EtcdSubnets:
    """The network below --etcd-prefix."""

    def __init__(self, settings: Settings, client: Client) -> None:
        """`client` is ours to close."""
        self._settings = settings
        self._client = client
        self._store = Store(client, settings.etcd_prefix)
        self._health = Health()
        self._config: NetworkConfig
        self._keeper: Keeper | None = None
        self._judge: Judge
        self._snapshots: Snapshots | None = None

    @property
    def state(self) -> RegistryState:
        """How the registry fares."""
        problem = self._keeper.problem if self._keeper else None
        wrong = (self._health.degraded, problem and f"cannot renew our lease: {problem}")
        return RegistryState(
            "etcd",
            ",".join(self._settings.etcd_endpoints),
            self._health.last_sync,
            "; ".join(it for it in wrong if it) or None,
            self._snapshots.revision if self._snapshots else 0,
        )

    @property
    def public_addresses(self) -> tuple[IPv4Address | None, IPv6Address | None]:
        """What stands there of this host is what we have written."""
        return None, None

    async def open(self, check: Check) -> NetworkConfig:
        """The network's configuration, as soon as there is a good one."""
        self._config = await await_config(self._store, self._health, check)
        return self._config

    async def held(self, public_ip: IPv4Address) -> Lease | None:
        """The lease with this public IP, unless the configuration has another idea of it."""
        return await self._persist("cannot read the leases", partial(self._acquirer().held, public_ip))

    async def acquire(self, attributes: Attributes) -> Lease:
        """Our lease of before, else the subnet of the last run, else a free one. Raises ConfigError if none is left."""
        previous = subnets_of(read_env(self._settings.subnet_file))
        attempt = partial(self._acquirer().acquire, attributes, previous)
        own = await self._persist("cannot get a lease", attempt)
        self._keeper = Keeper(Writer(self._store), own, 60.0 * self._settings.subnet_lease_renew_margin)
        self._judge = Judge(self._client, self._keeper, self._health)
        return own.lease

    def watch(self, own: Lease) -> AsyncGenerator[Snapshot, None]:
        """All leases, and again after each change."""
        view = View(self._store.keys, self._config, own)
        self._snapshots = Snapshots(self._store, view, self._health, self._judge)
        return self._snapshots.stream()

    async def run(self) -> None:
        """Keeps our lease. Raises LeaseRevokedError, RestartNeededError."""
        if self._keeper is None:
            raise RegistryError("etcd: there is no lease to keep")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keeper.run(), name="etcd lease")
                tasks.create_task(self._judge.run(), name="etcd own key")
                tasks.create_task(follow_config(self._store, self._config, self._health), name="etcd config")
        except* LeaseLostError as lost:
            raise RestartNeededError(str(lost.exceptions[0])) from None

    async def complete(self, sound: asyncio.Event) -> None:
        """Nobody is to be told."""

    async def close(self) -> None:
        """Closes the connection; the lease stays."""
        await self._client.close()

    def _acquirer(self) -> Acquirer:
        return Acquirer(Writer(self._store), self._config)

    async def _persist(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        return await persist(attempt, partial(self._health.tell, what))
