"""The Kubernetes registry: a node's podCIDR is its subnet, its annotations say where it is and how it is reached.

Owns the order of things: who we are, what is asked first, and which changes of our own node this process cannot follow.
Must not know HTTP (client.py), what is written to our node (announce.py), nor how the others are followed (watch.py).

Once started, nothing the API server does ends the daemon or takes a peer away: an outage, an expired version, a lost
permission only make `state` degraded. What can be refused is refused in `open`, `held` and `acquire`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TypeVar

import msgspec

from udpbackend.errors import ConfigError, HostError, RestartNeededError
from udpbackend.model import Attributes, Lease, NetworkConfig, Snapshot
from udpbackend.settings import Settings
from udpbackend.subnets.config import parse_config
from udpbackend.subnets.kube.access import find_access
from udpbackend.subnets.kube.annotations import NOTHING, Names, address_of
from udpbackend.subnets.kube.announce import Announcer
from udpbackend.subnets.kube.answers import FINAL, ApiError
from udpbackend.subnets.kube.client import Api
from udpbackend.subnets.kube.contact import Backoff, Contact, Timing
from udpbackend.subnets.kube.node import Node, own_lease
from udpbackend.subnets.kube.view import View
from udpbackend.subnets.kube.watch import follow
from udpbackend.subnets.manager import Check, RegistryState

log = logging.getLogger(__name__)

T = TypeVar("T")

PublicAddresses = tuple[IPv4Address | None, IPv6Address | None]


def manager(settings: Settings) -> KubeSubnets:
    """The registry that --kube-subnet-mgr asks for."""
    return KubeSubnets(settings, os.environ)


class KubeSubnets:
    """The registry as one node of the cluster sees it."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], timing: Timing | None = None) -> None:
        """`environ`: where flannel's manifest puts the name of the node, or of our pod."""
        self._settings = settings
        self._environ = environ
        self._timing = timing or Timing()
        self._contact = Contact("the API server", self._timing)
        self._api: Api | None = None
        self._public: PublicAddresses = (None, None)
        self._revision = 0
        self._problem = ""
        self._lacking: str | None = None
        self._names: Names
        self._config: NetworkConfig
        self._view: View
        self._lease: Lease
        self._announcer: Announcer | None = None

    @property
    def state(self) -> RegistryState:
        """How the registry fares."""
        contact = self._contact
        wrong = (contact.degraded, self._lacking, *self._of_own_node())
        degraded = "; ".join(it for it in wrong if it) or None
        return RegistryState("kube", contact.url, contact.last_sync, degraded, self._revision)

    def _of_own_node(self) -> tuple[str | None, ...]:
        """What keeps the other nodes from reaching us, as our node's object stands."""
        if self._announcer is None:
            return ()
        kept = self._problem and f"what this host has stays in use: {self._problem}"
        return self._view.deleted, kept, self._announcer.problem

    @property
    def public_addresses(self) -> PublicAddresses:
        """What the annotations node-public-ip and node-public-ipv6 of our node say."""
        return self._public

    async def open(self, check: Check) -> NetworkConfig:
        """Reads the network's configuration, once; finds our node, waiting for the API server if need be."""
        self._names = Names.under(self._settings.kube_annotation_prefix)
        self._config = await asyncio.to_thread(_net_conf, self._settings.net_config_path)
        check(self._config)
        _require_identity(self._settings, self._environ)
        access = await asyncio.to_thread(find_access, self._settings)
        self._contact.url = access.url
        self._api = api = Api(access, self._timing.request_s)
        name = await self._node_name(api)
        node = await self._answered(lambda: api.node(name))
        self._view = View(node, self._names, self._config)
        self._public = self._addresses(node)
        return self._config

    async def held(self, public_ip: IPv4Address) -> Lease | None:
        """Our node's podCIDRs, as soon as it has any, and what its annotations say of its backend."""
        await self._assigned()
        return own_lease(self._view.own, self._names, self._config, public_ip)

    async def acquire(self, attributes: Attributes) -> Lease:
        """Writes our node's annotations if they differ; the lease itself was made by the cluster."""
        node = self._view.own
        lease = own_lease(node, self._names, self._config, attributes.public_ip)
        announcer = Announcer(self._opened(), self._names, attributes, self._timing, self._view.patched)
        await announcer.begin(node)
        self._announcer = announcer
        self._lease = msgspec.structs.replace(
            lease,
            public_ipv6=None if attributes.public_ipv6 is None else int(attributes.public_ipv6),
            backend_type=attributes.backend_type,
            backend_data=attributes.backend_data or NOTHING.encode(),
            backend_v6_data=attributes.backend_v6_data or NOTHING.encode(),
        )
        return self._lease

    async def watch(self, own: Lease) -> AsyncGenerator[Snapshot, None]:
        """The leases of all nodes, at once and after each change; our own is `own` whatever the peers are shown."""
        view = self._view
        follower = asyncio.create_task(follow(self._opened(), view, self._contact, self._timing), name="kube watch")
        follower.add_done_callback(lambda _: view.changed.set())
        try:
            while True:
                await view.changed.wait()
                view.changed.clear()
                if follower.done():
                    follower.result()
                if (leases := await view.leases(own)) is not None:
                    self._revision += 1
                    yield Snapshot(leases, self._revision)
        finally:
            follower.cancel()
            await asyncio.wait((follower,))

    async def run(self) -> None:
        """Keeps our node's annotations; raises RestartNeededError when its podCIDR or its address has changed."""
        view, backoff = self._view, Backoff(self._timing)
        while True:
            view.own_changed.clear()
            node = view.own
            self._require_same(node)
            again_s = await self._acquired().upkeep(node)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if again_s is None else backoff.next_s(again_s)):
                    await view.own_changed.wait()

    async def complete(self, sound: asyncio.Event) -> None:
        """Sets our node's condition NetworkUnavailable to False as soon as that is true; retried until it works."""
        if self._settings.set_node_network_unavailable:
            await self._acquired().available(lambda: self._view.own, sound)

    async def close(self) -> None:
        """Lets connections go; annotations and condition stay."""
        if self._api is not None:
            await self._api.close()

    def _opened(self) -> Api:
        if self._api is None:
            raise HostError("the Kubernetes registry was not opened")
        return self._api

    def _acquired(self) -> Announcer:
        if self._announcer is None:
            raise HostError("the Kubernetes registry has given no lease yet")
        return self._announcer

    async def _node_name(self, api: Api) -> str:
        if name := self._settings.node_name or self._environ.get("NODE_NAME"):
            return name
        namespace, pod = self._environ["POD_NAMESPACE"], self._environ["POD_NAME"]
        try:
            name = await self._answered(lambda: api.node_of_pod(namespace, pod))
        except HostError as error:
            raise HostError(f"error retrieving pod spec for '{namespace}/{pod}': {error}") from None
        if not name:
            raise HostError(f"node name not present in pod spec '{namespace}/{pod}'")
        return name

    async def _answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Waits out an outage; raises HostError for a refusal that waiting does not change."""
        while True:
            try:
                found = await ask()
            except ApiError as error:
                if error.code in FINAL:
                    raise HostError(str(error)) from None
                await self._contact.lost(error)
            else:
                self._contact.restored()
                return found

    async def _assigned(self) -> None:
        """Waits until our node has a podCIDR: the cluster gives it one some time after it has come."""
        api, name, backoff = self._opened(), self._view.own.name, Backoff(self._timing)
        while not self._view.own.has_pod_cidr:
            if self._lacking is None:
                self._lacking = f'node "{name}" pod cidr not assigned'
                log.warning("%s: waiting for it", self._lacking)
            await asyncio.sleep(backoff.next_s())
            self._view.put(await self._answered(lambda: api.node(name)))
        if self._lacking is not None:
            log.info('node "%s" has its pod cidr now', name)
        self._lacking = None

    def _addresses(self, node: Node) -> PublicAddresses:
        return (
            address_of(IPv4Address, node.said, self._names.node_public_ip),
            address_of(IPv6Address, node.said, self._names.node_public_ipv6),
        )

    def _require_same(self, node: Node) -> None:
        """What our node has become, if it makes sense, is followed by starting over."""
        try:
            lease = own_lease(node, self._names, self._config, self._lease.public_address)
            public = self._addresses(node)
        except ConfigError as error:
            if str(error) != self._problem:
                log.warning("what this host has stays in use: %s", error)
            self._problem = str(error)
            return
        self._problem = ""
        for what, before, after in (
            ("podCIDR", self._lease.subnets, lease.subnets),
            ("public address", _given(self._public), _given(public)),
        ):
            if before != after:
                raise RestartNeededError(
                    f"the {what} of node {node.name} has changed from {_words(before)} to {_words(after)}"
                )


def _net_conf(path: Path) -> NetworkConfig:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"failed to read net conf: {path}: {error.strerror}") from None
    try:
        return parse_config(text)
    except ConfigError as error:
        raise ConfigError(f"error parsing subnet config: {path}: {error}") from None


def _require_identity(settings: Settings, environ: Mapping[str, str]) -> None:
    named = settings.node_name or environ.get("NODE_NAME")
    if not named and not (environ.get("POD_NAME") and environ.get("POD_NAMESPACE")):
        raise ConfigError("env variables POD_NAME and POD_NAMESPACE must be set, or NODE_NAME")


def _given(addresses: PublicAddresses) -> tuple[object, ...]:
    return tuple(address for address in addresses if address is not None)


def _words(values: tuple[object, ...]) -> str:
    return " and ".join(map(str, values)) or "nothing"
