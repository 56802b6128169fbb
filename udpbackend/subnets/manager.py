"""What a subnet manager is: the registry that says which node owns which subnet, as the daemon uses it.

Owns the protocol, the words in which every registry tells how it fares, and the choice of one. A manager knows no
backend: what a backend wants its peers to know is handed to it as `Attributes`, opaque but for their JSON form.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address
from types import ModuleType
from typing import Protocol, cast

import msgspec

from udpbackend.model import Attributes, Lease, NetworkConfig, Snapshot
from udpbackend.settings import Settings

Check = Callable[[NetworkConfig], None]
"""Raises ConfigError for a configuration that no backend can use, whatever the host."""


class RegistryState(msgspec.Struct, frozen=True):
    """How a registry fares, for status, health and metrics."""

    kind: str
    """`static`, `etcd` or `kube`."""
    source: str
    """Where the leases come from: a file's path, endpoints, a URL; never a secret."""
    last_sync: float
    """When the leases in use were last known to be the registry's own, in seconds since the epoch; 0 for never."""
    degraded: str | None
    """Why the leases in use may be out of date: one line, or None."""
    revision: int
    """That of the snapshot in use; 0 before the first."""


class SubnetManager(Protocol):
    """Called in this order: `open`, `held`, `acquire`, `watch` and `run` beside each other, `complete`, `close`.

    An outage of the registry after `open` is never an error: the methods wait and `state` says so.
    """

    @property
    def state(self) -> RegistryState:
        """How the registry fares now; callable at any time."""

    @property
    def public_addresses(self) -> tuple[IPv4Address | None, IPv6Address | None]:
        """After `open`: what the registry wants this host to be known by, in place of --public-ip and --public-ipv6."""

    async def open(self, check: Check) -> NetworkConfig:
        """The network's configuration, which `check` has nothing against.

        Raises ConfigError or HostError where waiting cannot help.
        """

    async def held(self, public_ip: IPv4Address) -> Lease | None:
        """The lease that `acquire` would give again, as far as it is known; changes nothing.

        A registry whose leases are made by others (static, kube) knows it always, or raises ConfigError.
        """

    async def acquire(self, attributes: Attributes) -> Lease:
        """The lease of this host, written to the registry where that is ours to write. ConfigError if there is none."""

    def watch(self, own: Lease) -> AsyncGenerator[Snapshot, None]:
        """All leases, at once and after each change, our own among them; never ends by itself."""

    async def run(self) -> None:
        """Keeps the lease until cancelled.

        Raises LeaseRevokedError when it was taken away on purpose, RestartNeededError when it has become another one.
        """

    async def complete(self, sound: asyncio.Event) -> None:
        """Tells the registry that packets flow, once that is true: `sound` is set while nothing here prevents it."""

    async def close(self) -> None:
        """Lets connections go; the lease stays."""


def open_manager(settings: Settings) -> SubnetManager:
    """The manager the settings ask for."""
    return cast("SubnetManager", load_manager(settings).manager(settings))


def load_manager(settings: Settings) -> ModuleType:
    """Its module. Each is loaded only when it is used: etcd's client alone weighs 30 MB."""
    if settings.static_subnets is not None:
        module = "static"
    elif settings.kube_subnet_mgr:
        module = "kube.manager"
    else:
        module = "etcd.manager"
    return import_module(f"udpbackend.subnets.{module}")
