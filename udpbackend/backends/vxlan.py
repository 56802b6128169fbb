"""The vxlan backend: the kernel carries packets between VXLAN devices; we make ours and say where each peer is.

Owns what is wanted in the kernel. Must not know which registry the leases come from, nor how links and tables are
written (`host`). flannel's nodes are peers like our own.

Theory of operation: the kernel's state is never changed from memory. Each look compares all of it with what the last
snapshot asks for, so whatever others have done, a deleted device too, is made up for by the same few lines. Changes of
links, addresses and routes are told by the kernel. Those of neighbours and forwarding entries would be too, but only
together with every ARP entry of the host, which would wake us all day: these are found by a look every LOOK_S. It costs
three dumps, 70 ms for 5,000 peers, and writes nothing where nothing differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from udpbackend.backends.backend import BackendFacts, Context
from udpbackend.backends.keeper import Look
from udpbackend.backends.kept import KeptByKernel, overlay
from udpbackend.backends.peers import apart, not_reached, others
from udpbackend.backends.vxlan_config import OVERHEAD_BYTES, VxlanOptions
from udpbackend.backends.vxlan_peers import Reached, backend_data, reached, ways
from udpbackend.backends.vxlan_self import Host, Identity
from udpbackend.errors import HostError
from udpbackend.host import vxlan_link
from udpbackend.host.addresses import connected, underlay_problem
from udpbackend.host.bulk import Bulk
from udpbackend.host.entries import direct_link, look_up
from udpbackend.host.leftovers import Which
from udpbackend.host.netlink import failing
from udpbackend.host.reconcile import Scope, reconcile, remove
from udpbackend.model import Attributes, Lease, NetworkConfig, Prefix, Snapshot

OPTION_MTU_ADDS = OVERHEAD_BYTES[4]
"""Backend.MTU is that of the underlay, as in flannel."""
LOOK_S = 2.0
"""With the keeper's own pace, what is broken is whole again within three seconds."""


def check(config: NetworkConfig) -> None:
    """Raises ConfigError for a wrong option."""
    VxlanOptions.of(config)


def backend(context: Context) -> VxlanBackend:
    """The vxlan backend of a network configuration. Raises ConfigError for a wrong option."""
    return VxlanBackend(context)


@dataclass(frozen=True, slots=True)
class Half:
    """What the overlay is to be in one IP version: a device and the peers behind it."""

    vtep: vxlan_link.Vtep
    subnet: Prefix
    """Ours."""
    peers: Sequence[Reached] = ()
    problems: Sequence[str] = ()
    """Why other peers are not among them."""


class VxlanBackend(KeptByKernel):
    """`prepare`, `start`, then `apply` for each snapshot while `run` repairs; `stop` in any state."""

    def __init__(self, context: Context) -> None:
        super().__init__(context.netlink, LOOK_S)
        self._host = Host(context)
        self.port = self._host.options.port
        self.mtu = self._host.mtu(4)
        """That of `flannel.<VNI>`, in bytes; its IPv6 twin's is less, which the pods learn by IPv6's path discovery."""
        self._identities: dict[int, Identity] = {}
        self._halves: tuple[Half, ...] = ()
        self._made: list[str] = []

    async def prepare(self, held: Lease | None) -> Attributes:
        """Refuses what cannot work, and says what the peers are to know; changes nothing."""
        self._identities = found = await self._host.identify(self._netlink, held)
        data = {version: backend_data(self._host.options.vni, it.mac) for version, it in found.items()}
        endpoint = self._host.endpoint
        return Attributes(
            endpoint.public_ip, endpoint.public_ipv6 if 6 in found else None, "vxlan", data[4], data.get(6)
        )

    async def start(self, lease: Lease, snapshot: Snapshot) -> None:
        """Makes or takes over the devices, and what leads to the peers."""
        if not self._identities:
            raise HostError("the vxlan backend was not prepared")
        self._begin(lease)
        config = self._host.config
        pairs = [(lease.subnet, config.network), (lease.ipv6_subnet, config.ipv6 and config.ipv6.network)]
        self._halves = tuple(
            Half(self._host.vtep(subnet, network, self._identities[subnet.version]), subnet)
            for subnet, network in pairs
            if subnet and network and subnet.version in self._identities
        )
        for half in self._halves:
            found = await self._netlink.call(partial(vxlan_link.find, vtep=half.vtep))
            if found is None or found.unfit:
                self._made.append(half.vtep.name)
        await self._settle(snapshot)

    async def undo(self) -> None:
        """After `stop`: takes back what a `start` that failed has made; a device that was there before stays."""
        for half in self._halves:
            if half.vtep.name in self._made:
                await self._netlink.call(partial(_remove, name=half.vtep.name, network=half.vtep.network))

    async def remove(self) -> None:
        """After `stop`: takes away the devices and our routes."""
        config, options = self._host.config, self._host.options
        for network in config.networks:
            await self._netlink.call(partial(_remove, name=options.device(network.version), network=network))

    def others(self) -> Which:
        """Devices of other backends; routes are put right with each look."""
        config = self._host.config
        keep = [self._host.options.device(network.version) for network in config.networks]
        return Which(config.networks, keep=keep, routes=False)

    async def facts(self) -> BackendFacts:
        """What there is to see now."""
        if not self._halves:
            return BackendFacts()
        devices = [half.vtep for half in self._halves]
        return BackendFacts(overlay=overlay(devices, self.mtu), routes=self._routes, problems=self._keeper.problems)

    def _follow(self, snapshot: Snapshot) -> None:
        """What the snapshot asks for from now on."""
        halves = []
        for half in self._halves:
            peers = others(snapshot.leases, self._own, half.vtep.network.version)
            halves.append(Half(half.vtep, half.subnet, *reached(peers, self._host.options.vni, half.vtep.mac)))
        self._halves = tuple(halves)

    async def _look(self) -> Look:
        """One look at everything, and its repair."""
        done: list[str] = []
        problems = [problem for half in self._halves for problem in half.problems]
        routes = 0
        links = await connected(self._netlink, self._host.config.networks)
        for it in self._halves:
            peers, blocked = apart(it.peers, it.subnet, links)
            half = replace(it, peers=peers)
            problems += blocked
            try:
                words, refused, stays = await self._netlink.call(partial(self._reconcile, half=half))
            except HostError as error:
                if self._starting:
                    raise
                problems.append(str(error))
                continue
            done += words
            problems += refused + stays
            routes += len(half.peers) - len(refused)
        if problem := await underlay_problem(self._netlink, self._host.endpoint):
            problems.insert(0, problem)
        self._routes = routes
        return Look(done, problems)

    async def _reconcile(self, ip: Any, half: Half) -> tuple[list[str], list[str], list[str]]:
        """Runs in the netlink thread. What was done, why which peers are not reached, and what else was refused."""
        link, done = await vxlan_link.ensure(ip, half.vtep, tidy=self._starting)
        with failing("read the routing tables"), Bulk() as bulk:
            direct = _direct(bulk, half.peers) if self._host.options.direct_routing else {}
            outcome = reconcile(bulk, Scope(half.vtep.network, link), ways(half.peers, link, direct))
        refused = [not_reached(half.peers[place], error.strerror) for place, error in outcome.refused.items()]
        return [*done, *outcome.words()], refused, outcome.stays


async def _remove(ip: Any, name: str, network: Prefix) -> None:
    await vxlan_link.remove(ip, name)
    with failing("remove the routes"), Bulk() as bulk:
        remove(bulk, Scope(network))  # those of DirectRouting do not go with the device


def _direct(bulk: Bulk, peers: Sequence[Reached]) -> dict[bytes, int]:
    """Outer addresses that are on a link of this host, and which."""
    answers = bulk.exchange([look_up(peer.outer) for peer in peers])
    links = {
        peer.outer: direct_link(answer)
        for peer, answer in zip(peers, answers, strict=True)
        if not isinstance(answer, OSError)
    }
    return {outer: link for outer, link in links.items() if link}
