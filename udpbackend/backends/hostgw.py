"""The host-gw backend: a route to each peer's subnet by way of the peer itself, for nodes that share a link.

Owns which routes are wanted. Must not know which registry the leases come from, nor how routes are written (`host`).
There is no device and nothing to agree on, so flannel's nodes are peers like our own.

Theory of operation: as with vxlan, each look compares all of our routes with those the last snapshot asks for. Ours are
known by their protocol number (`ip route show proto 117`; flanneld's bear the one of routes made by hand), so those
that an earlier run has left are found, and nobody else's is ever removed. Only a route to the very subnet of a peer
gives way to ours, as it does to flannel's.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from udpbackend.backends.backend import BackendFacts, Context
from udpbackend.backends.keeper import Look
from udpbackend.backends.kept import KeptByKernel
from udpbackend.backends.peers import Peer, near, not_reached, others, own_ipv6
from udpbackend.errors import ConfigError, HostError
from udpbackend.host import rtnetlink
from udpbackend.host.addresses import connected, local_addresses, underlay_problem
from udpbackend.host.bulk import Bulk
from udpbackend.host.entries import Route
from udpbackend.host.leftovers import Which
from udpbackend.host.netlink import failing
from udpbackend.host.reconcile import Outcome, Scope, Way, delete, reconcile, remove
from udpbackend.model import Attributes, Lease, NetworkConfig, Prefix, Snapshot

LOOK_S = 10.0
"""flannel's. The kernel tells of every change that matters here: this is for what it could not tell."""


def check(_config: NetworkConfig) -> None:
    """There are no options to be wrong."""


def backend(context: Context) -> HostGwBackend:
    """The host-gw backend, which has no options."""
    return HostGwBackend(context)


@dataclass(frozen=True, slots=True)
class Half:
    """What is wanted in one IP version."""

    network: Prefix
    subnet: Prefix
    """Ours."""
    peers: Sequence[tuple[Peer, bytes]] = ()
    """With the address each is reached by."""
    problems: Sequence[str] = ()
    """Why other peers are not among them."""


class HostGwBackend(KeptByKernel):
    """`prepare`, `start`, then `apply` for each snapshot while `run` repairs; `stop` in any state."""

    port = None

    def __init__(self, context: Context) -> None:
        super().__init__(context.netlink, LOOK_S)
        self._config, self._endpoint = context.config, context.endpoint
        self.mtu = context.endpoint.mtu
        self._halves: tuple[Half, ...] = ()
        self._made: list[Route] = []

    async def prepare(self, held: Lease | None) -> Attributes:
        """Refuses what cannot work, and says what the peers are to know; changes nothing."""
        endpoint = self._endpoint
        if endpoint.public_ip != endpoint.address:
            raise ConfigError(
                "your PublicIP differs from interface IP, meaning that probably you're on a NAT, which is not "
                f"supported by host-gw backend: PublicIP is {endpoint.public_ip}, {endpoint.interface} has "
                f"{endpoint.address}"
            )
        if self._config.ipv6 is None or (held is not None and held.ipv6_subnet is None):
            return Attributes(endpoint.public_ip, backend_type="host-gw")
        public_ipv6 = own_ipv6(endpoint, await local_addresses(self._netlink))
        return Attributes(endpoint.public_ip, public_ipv6, "host-gw")

    async def start(self, lease: Lease, snapshot: Snapshot) -> None:
        """Makes or takes over the routes to the peers."""
        self._begin(lease)
        self._halves = tuple(map(Half, self._config.networks, lease.subnets))
        await self._settle(snapshot)

    async def undo(self) -> None:
        """After `stop`: takes back the routes that a `start` that failed has made."""

        async def work(_ip: Any) -> None:
            with failing("remove the routes"), Bulk() as bulk:
                delete(bulk, self._made)

        await self._netlink.call(work)

    async def remove(self) -> None:
        """After `stop`: takes away our routes."""
        for network in self._config.networks:
            await self._netlink.call(partial(_remove, network=network))

    def others(self) -> Which:
        """Devices of other backends; routes are put right with each look."""
        return Which(self._config.networks, routes=False)

    async def facts(self) -> BackendFacts:
        """What there is to see now."""
        return BackendFacts(routes=self._routes, problems=self._keeper.problems)

    def _follow(self, snapshot: Snapshot) -> None:
        """What the snapshot asks for from now on."""
        halves = []
        for half in self._halves:
            peers = list(others(snapshot.leases, self._own, half.network.version))
            problems = [not_reached(peer, "its lease has no PublicIPv6") for peer in peers if peer.outer is None]
            reached = [(peer, peer.outer) for peer in peers if peer.outer]
            halves.append(Half(half.network, half.subnet, reached, problems))
        self._halves = tuple(halves)

    async def _look(self) -> Look:
        """One look at all our routes, and their repair."""
        if problem := await underlay_problem(self._netlink, self._endpoint):
            return Look(problems=[problem])  # that every route is refused then is no news
        done: list[str] = []
        problems = [problem for half in self._halves for problem in half.problems]
        routes = 0
        links = await connected(self._netlink, self._config.networks)
        for half, blocked in (_apart(it, links) for it in self._halves):
            problems += blocked
            outcome = await self._netlink.call(partial(self._reconcile, half=half))
            done += outcome.words()
            problems += [_refused(half.peers[place][0], error) for place, error in outcome.refused.items()]
            problems += outcome.stays
            routes += len(half.peers) - len(outcome.refused)
            if self._starting:
                self._made += [entry for entry in outcome.added if isinstance(entry, Route)]
        self._routes = routes
        return Look(done, problems)

    async def _reconcile(self, ip: Any, half: Half) -> Outcome:
        """Runs in the netlink thread."""
        with failing("read the routing tables"):
            link = await rtnetlink.link(ip, ifname=self._endpoint.interface)
            if link is None:
                raise HostError(f"interface {self._endpoint.interface} is gone")
            ways = [Way(Route.to(peer.subnet, outer, link["index"])) for peer, outer in half.peers]
            with Bulk() as bulk:
                return reconcile(bulk, Scope(half.network), ways)


def _apart(half: Half, links: Sequence[tuple[str, Prefix]]) -> tuple[Half, list[str]]:
    """Without the peers whose subnet is on a link of this host, and the words about those."""
    why = {it: words for it, _ in half.peers if (words := near(it.subnet, half.subnet, links))} if links else {}
    if not why:
        return half, []
    rest = replace(half, peers=[(it, outer) for it, outer in half.peers if it not in why])
    return rest, [not_reached(it, words) for it, words in why.items()]


async def _remove(_ip: Any, network: Prefix) -> None:
    with failing("remove the routes"), Bulk() as bulk:
        remove(bulk, Scope(network))


def _refused(peer: Peer, error: OSError) -> str:
    far = error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    why = "; host-gw needs all nodes on one link, and there is a router between it and this host" if far else ""
    return not_reached(peer, f"{error.strerror}{why}")
