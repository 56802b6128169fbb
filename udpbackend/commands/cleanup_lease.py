"""The lease of this host in etcd. A daemon leaves it there on purpose, to have the same subnet after a restart.

Owns the rule by which it is known for ours: its subnet is the one of the subnet file, and its PublicIP is an address of
this host. One with another PublicIP may be another node's by now, and a key without an etcd lease is an
administrator's reservation: both are shown and left alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv4Address

from udpbackend.errors import RegistryError
from udpbackend.host.leftovers_item import Leftover
from udpbackend.model import Prefix
from udpbackend.settings import Settings
from udpbackend.subnets.etcd.access import Access
from udpbackend.subnets.etcd.client import Client
from udpbackend.subnets.etcd.store import Held, Store


async def leases(settings: Settings, subnets: Collection[Prefix], addresses: Collection[object]) -> list[Leftover]:
    """Leases of these subnets. Raises RegistryError, UsageError for an endpoint, HostError for a certificate."""
    async with _store(settings) as store:
        held = (await store.leases()).held if subnets else ()
    found = []
    for it in held:
        if it.lease.subnet in subnets:
            why = f"its subnet is that of {settings.subnet_file}, its PublicIP {IPv4Address(it.lease.public_ip)}"
            work, alone = partial(_delete, settings, it), not_ours(it, addresses)
            found.append(Leftover((f"lease {it.kv.key.decode(errors='replace')}",), why, work, alone))
    return found


def not_ours(held: Held, addresses: Collection[object]) -> str:
    """Why a lease of our subnet is not to be removed; empty if it is."""
    if IPv4Address(held.lease.public_ip) not in addresses:
        return "it may be another node's: this host does not have its PublicIP"
    if not held.kv.lease:
        return "it is a reservation, made by an administrator"
    return ""


async def _delete(settings: Settings, held: Held) -> None:
    async with _store(settings) as store:
        if not await store.client.delete_if(held.kv.key, held.kv.mod_revision):
            raise RegistryError(f"cannot remove {held.kv.key.decode(errors='replace')}: it has just been changed")


@asynccontextmanager
async def _store(settings: Settings) -> AsyncGenerator[Store, None]:
    client = Client(settings.etcd_endpoints, Access.of(settings))
    try:
        yield Store(client, settings.etcd_prefix)
    finally:
        await client.close()
