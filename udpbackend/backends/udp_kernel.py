"""The udp backend with the kernel as its dataplane: FOU tunnels carry the packets, we say where each peer is.

Owns what is wanted in the kernel. Must not know which registry the leases come from, nor how links and tables are
written (`host`). On the wire it is the udp backend: nodes of both dataplanes, and flanneld's, are peers.

Theory of operation: as with vxlan, the kernel's state is never changed from memory. Each look compares all of it with
what the last snapshot asks for: the rules that let only peers in, the FOU port, the devices, a route to each peer's
subnet whose gateway is the peer. Nothing of it needs this process: packets flow while it is stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address
from typing import Any

from udpbackend.backends.backend import BackendFacts, Context
from udpbackend.backends.keeper import Look
from udpbackend.backends.kept import KeptByKernel, overlay
from udpbackend.backends.peers import apart, not_reached
from udpbackend.backends.udp_config import UdpOptions
from udpbackend.backends.udp_mtu import check_ipv6, check_mtu, overlay_mtu
from udpbackend.backends.udp_peers import TAKES_IPV6, Reached, reached
from udpbackend.backends.udp_sockets import refuse_taken
from udpbackend.errors import HostError
from udpbackend.host import fou, fou_guard, fou_left, fou_link
from udpbackend.host.addresses import connected, underlay_problem
from udpbackend.host.bulk import Bulk
from udpbackend.host.entries import Route
from udpbackend.host.flannel_name import free_name
from udpbackend.host.fou import FouPort
from udpbackend.host.fou_guard import Guard, Wanted
from udpbackend.host.fou_left import Left
from udpbackend.host.fou_link import SUFFIX6, Tunnel
from udpbackend.host.leftovers import Which
from udpbackend.host.netlink import failing
from udpbackend.host.reconcile import Scope, Way, reconcile, remove
from udpbackend.model import Attributes, Lease, Prefix, Snapshot

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""vxlan's: the kernel tells neither of FOU ports nor, here, of rules."""


@dataclass(frozen=True, slots=True)
class Half:
    """What the overlay is to be in one IP version: a device and the peers behind it."""

    tunnel: Tunnel
    subnet: Prefix
    """Ours."""
    peers: Sequence[Reached] = ()


class KernelUdpBackend(KeptByKernel):
    """`prepare`, `start`, then `apply` for each snapshot while `run` repairs; `stop` in any state."""

    def __init__(self, context: Context) -> None:
        super().__init__(context.netlink, LOOK_S)
        self._context = context
        self._config, self._endpoint = context.config, context.endpoint
        options = UdpOptions.parse(context.config.backend)
        self.port = options.port
        self.mtu = overlay_mtu(options, context.endpoint)
        self._check = context.settings.source_check or "peer"
        self._guard = Guard()
        self._name = ""
        self._halves: tuple[Half, ...] = ()
        self._made: list[str] = []

    async def prepare(self, held: Lease | None) -> Attributes:
        """Refuses what cannot work, and says what the peers are to know; changes nothing."""
        ipv6 = self._config.ipv6 is not None and (held is None or held.ipv6_subnet is not None)
        check_mtu(self.mtu, self._endpoint)
        self._name = await free_name(self._netlink, self._config.networks)
        if ipv6:
            check_ipv6(self._device(6), self.mtu)
        fou_guard.require()
        if self._context.inherited.queues is None:
            # Of what another daemon holds, queues that we have from it apart.
            for network in self._config.networks:
                await self._netlink.call(partial(fou_link.find, tunnel=self._tunnel(network, network)))
            await self._netlink.call(self._refuse_taken_port)
        return Attributes(self._endpoint.public_ip, backend_data=TAKES_IPV6 if ipv6 else None)

    async def start(self, lease: Lease, snapshot: Snapshot) -> None:
        """Makes or takes over the devices, and what leads to the peers."""
        if not self._name:
            raise HostError("the udp backend was not prepared")
        self._begin(lease)
        await asyncio.to_thread(self._let_go)
        pairs = [
            (lease.subnet, self._config.network),
            (lease.ipv6_subnet, self._config.ipv6 and self._config.ipv6.network),
        ]
        self._halves = tuple(
            Half(self._tunnel(subnet, network), subnet) for subnet, network in pairs if subnet and network
        )
        stale: set[FouPort] = set()
        for half in self._halves:
            found = await self._netlink.call(partial(fou_link.find, tunnel=half.tunnel))
            if found is None or found.unfit:
                self._made.append(half.tunnel.name)
            if found is not None and found.port not in (None, half.tunnel.fou_port):
                stale.add(found.port)
        await self._settle(snapshot)
        for what in await fou_left.remove(self._netlink, Left(ports=tuple(stale))):
            log.info("removed %s, of an earlier configuration", what)

    async def undo(self) -> None:
        """After `stop`: takes back what a `start` that failed has made; a device that was there before stays."""
        if self._halves and all(half.tunnel.name in self._made for half in self._halves):
            await self.remove()

    async def remove(self) -> None:
        """After `stop`: takes away the devices, their port, our routes, and last the rules."""
        if not self._name:
            return
        port = FouPort(self.port, self._endpoint.address)
        for network in self._config.networks:
            await self._netlink.call(partial(_remove, name=self._device(network.version), network=network, port=port))
        await asyncio.to_thread(fou_guard.remove, self.port)

    def others(self) -> Which:
        """Devices of other backends; routes are put right with each look."""
        shares = [half.subnet for half in self._halves] or self._config.networks
        return Which(self._config.networks, keep=[self._device(it.version) for it in shares], routes=False)

    async def facts(self) -> BackendFacts:
        """What there is to see now."""
        if not self._halves:
            return BackendFacts(dataplane="kernel", source_check=self._check)
        return BackendFacts(
            overlay=overlay([half.tunnel for half in self._halves], self.mtu),
            routes=self._routes,
            problems=self._keeper.problems,
            dataplane="kernel",
            source_check=self._check,
        )

    def _device(self, version: int) -> str:
        """The name of the device that carries packets of an IP version."""
        return self._name if version == 4 else self._name + SUFFIX6

    def _tunnel(self, subnet: Prefix, network: Prefix) -> Tunnel:
        return Tunnel(
            name=self._device(subnet.version),
            local=self._endpoint.address,
            port=self.port,
            address=subnet.base,
            network=network,
            mtu=self.mtu,
            copy_dscp=self._context.settings.copy_dscp,
            strict=self._check == "peer",
        )

    async def _refuse_taken_port(self, _ip: Any) -> None:
        port = FouPort(self.port, self._endpoint.address)
        with failing("read the FOU ports"):
            there = fou.ports()
        if port not in there:
            try:
                refuse_taken(port.local or IPv4Address(0), port.port)
            except HostError as error:
                raise HostError(f"{error}: {fou_link.who_has(port, there)}") from error

    def _let_go(self) -> None:
        """Of what the userspace dataplane has kept for a next start: its queues hold flannel0 and the UDP port."""
        inherited = self._context.inherited
        if inherited.queues is not None:
            log.warning("the kernel carries the packets from now on: they are lost until this start is done")
            inherited.abandon()
        inherited.store.forget()

    def _follow(self, snapshot: Snapshot) -> None:
        """What the snapshot asks for from now on."""
        own = self._own
        self._halves = tuple(
            replace(half, peers=reached(snapshot.leases, own, half.subnet.version)) for half in self._halves
        )

    async def _look(self) -> Look:
        """One look at everything, and its repair."""
        done: list[str] = []
        problems: list[str] = []
        routes = 0
        try:
            done += await self._settle_guard()
        except HostError as error:
            if self._starting:
                raise
            problems.append(str(error))
        links = await connected(self._netlink, self._config.networks)
        for it in self._halves:
            peers, blocked = apart(it.peers, it.subnet, links)
            problems += blocked
            try:
                words, refused = await self._netlink.call(partial(self._reconcile, half=replace(it, peers=peers)))
            except HostError as error:
                if self._starting:
                    raise
                problems.append(str(error))
                continue
            done += words
            problems += refused
            routes += len(peers) - len(refused)
        if problem := await underlay_problem(self._netlink, self._endpoint):
            problems.insert(0, problem)
        self._routes = routes
        return Look(done, problems)

    async def _settle_guard(self) -> Sequence[str]:
        """The rules first: no packet comes in before them."""
        twin = self._halves[1:]
        wanted = Wanted(
            local=self._endpoint.address,
            port=self.port,
            peers=frozenset(peer.outer for half in self._halves for peer in half.peers),
            tunnels=await self._netlink.call(partial(fou_link.other_ends, local=self._endpoint.address)),
            check=self._check == "peer",
            device6=twin[0].tunnel.name if twin else None,
        )
        return await asyncio.to_thread(self._guard.settle, wanted)

    async def _reconcile(self, ip: Any, half: Half) -> tuple[list[str], list[str]]:
        """Runs in the netlink thread. What was done, and why which peers are not reached."""
        link, done = await fou_link.ensure(ip, half.tunnel, tidy=self._starting)
        ways = [Way(Route.to(peer.subnet, peer.gateway, link, onlink=True)) for peer in half.peers]
        with failing("read the routing tables"), Bulk() as bulk:
            outcome = reconcile(bulk, Scope(half.tunnel.network), ways)
        refused = [not_reached(half.peers[place], error.strerror) for place, error in outcome.refused.items()]
        return [*done, *outcome.words()], refused


async def _remove(ip: Any, name: str, network: Prefix, port: FouPort) -> None:
    await fou_link.remove(ip, name, port)
    with failing("remove the routes"), Bulk() as bulk:
        remove(bulk, Scope(network))
