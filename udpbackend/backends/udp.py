"""The udp backend: who the peers are becomes a route table, a UDP socket and flannel0 carry their packets.

Owns the socket, the C dataplane and what is published to it. Must not know which registry the leases come from: it is
handed snapshots. What can be refused is refused in `prepare`; `start` is the first to change the machine, and `undo`
takes that back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
import time
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from ipaddress import IPv4Address, IPv6Address

from udpbackend.backends.backend import NO_PEERS, BackendFacts, Context, KernelDrop, Overlay
from udpbackend.backends.udp_config import UdpOptions
from udpbackend.backends.udp_device import Device, Plan, refuse_others_device
from udpbackend.backends.udp_drops import KERNEL_DROPS
from udpbackend.dataplane.native import ROUTE, CounterInfo, Dataplane, Options, counter_infos, pack_route
from udpbackend.dataplane.tun import check_tun_access
from udpbackend.errors import ConfigError, HostError
from udpbackend.host import overlay_plan
from udpbackend.host.addresses import local_addresses, underlay_problem
from udpbackend.host.flannel0 import OverlayLink
from udpbackend.host.flannel_name import free_name
from udpbackend.host.ipv6 import require_ipv6
from udpbackend.host.leftovers import Which
from udpbackend.model import WIDTH, Attributes, Lease, NetworkConfig, Prefix, Snapshot

log = logging.getLogger(__name__)

OVERHEAD_BYTES = 28
"""Outer IPv4 and UDP headers."""
MIN_MTU_BYTES = 68
"""RFC 791: every IPv4 link takes as much."""
IPV6_MIN_MTU_BYTES = 1280
"""RFC 8200: every IPv6 link takes as much, and Linux takes IPv6 off a device that does not."""
PUBLISH_INTERVAL_S = 0.05
LONG_LEASES = 1000
"""From so many on, making a table is lent a thread."""
TAKES_IPV6 = b'{"udpbackend":1,"ipv6":true}'
"""What a node says that takes IPv6 out of datagrams; flanneld's udp backend looks at nobody's data."""
REPAIR_INTERVAL_S = 30.0
"""flannel0 is looked at whenever the kernel tells of a change, and at least so often: a look costs ten milliseconds,
and without a change there is nothing to see."""
SO_MEMINFO, SK_MEMINFO_DROPS = 55, 8  # asm-generic/socket.h, linux/sock_diag.h; Python's socket module lacks them


def check(config: NetworkConfig) -> None:
    """Raises ConfigError for a wrong option."""
    UdpOptions.parse(config.backend)


def backend(context: Context) -> UdpBackend:
    """The udp backend of a network configuration. Raises ConfigError for a wrong option."""
    return UdpBackend(context)


class UdpBackend:
    """`prepare`, `start`, then `apply` for each snapshot while `run` repairs; `stop` in any state."""

    def __init__(self, context: Context) -> None:
        options = UdpOptions.parse(context.config.backend)
        self.port = options.port
        self.mtu = options.mtu or context.endpoint.mtu - OVERHEAD_BYTES
        """flannel0's, in bytes."""
        self._config = context.config
        self._endpoint = context.endpoint
        self._netlink = context.netlink
        self._link = OverlayLink(context.netlink)
        chosen = context.settings
        self._options = Options(chosen.source_check, chosen.copy_dscp, chosen.offloads_off)
        self._workers = context.settings.workers
        self._cpus = context.settings.worker_cpus
        self._nice = context.settings.nice
        self._published = context.published
        self._publishing = asyncio.Lock()
        self._published_at = 0.0
        self._publication: asyncio.Future[None] | None = None
        self._routes = 0
        self._local: tuple[IPv4Address | IPv6Address, ...] = ()
        self._underlay_problem: str | None = None
        self._own: Lease | None = None
        self._snapshot: Snapshot | None = None
        self._source_ports = context.settings.source_ports
        self._sockets: list[socket.socket] = []
        self._senders: list[socket.socket] = []
        """These only send: what a stranger sends to their ports is never read."""
        self._dataplane: Dataplane | None = None
        self._overlay: overlay_plan.Overlay | None = None
        self._dropped_before: dict[str, int] = {}
        """What flannel0 has counted while nobody was reading: it outlives the daemons."""
        self._device: Device | None = None

    async def prepare(self, held: Lease | None) -> Attributes:
        """Refuses what cannot work; changes nothing, but holds the UDP port from now on."""
        ipv6 = self._config.ipv6 is not None and (held is None or held.ipv6_subnet is not None)
        if self.mtu < MIN_MTU_BYTES:
            raise ConfigError(
                f"interface {self._endpoint.interface} has an MTU of {self._endpoint.mtu} bytes, "
                f"expected at least {MIN_MTU_BYTES + OVERHEAD_BYTES}"
            )
        if self.mtu > self._endpoint.mtu - OVERHEAD_BYTES:
            log.warning(
                "Backend.MTU %d does not fit %s, whose MTU of %d leaves %d: longer packets will be cut or refused",
                self.mtu, self._endpoint.interface, self._endpoint.mtu, self._endpoint.mtu - OVERHEAD_BYTES,
            )  # fmt: skip
        self._link = OverlayLink(self._netlink, await free_name(self._netlink, self._config.networks))
        if ipv6:
            self._require_ipv6()
        check_tun_access()
        await refuse_others_device(self._link)
        self._sockets = _bind(self._endpoint.address, self.port, max(1, self._workers))
        for _ in range(self._source_ports):
            self._senders.append(_bound(self._endpoint.address, 0, share=False))
        return Attributes(self._endpoint.public_ip, backend_data=TAKES_IPV6 if ipv6 else None)

    async def start(self, lease: Lease, snapshot: Snapshot) -> None:
        """Makes or takes over flannel0, publishes the routes and lets packets flow."""
        if not self._sockets:
            raise HostError("the udp backend was not prepared")
        self._own = lease
        self._overlay = overlay = _overlay(self._config, lease, self.mtu)
        self._dataplane = Dataplane(
            tun_address=overlay.address,
            tun_address6=overlay.address6,
            options=self._options,
        )
        queues, senders = ([bound.fileno() for bound in group] for group in (self._sockets, self._senders))
        plan = Plan(queues, senders, self._workers > 0, self._cpus, self._nice)
        self._device = Device(self._link, self._overlay, self._dataplane, plan)
        await self._device.open()
        self._local = await local_addresses(self._netlink)
        await self.apply(snapshot)
        with suppress(HostError):
            self._dropped_before = await self._link.drops()
        self._device.start()

    async def apply(self, snapshot: Snapshot) -> None:
        """Publishes the routes of a snapshot."""
        self._snapshot = snapshot
        await self._publish()

    async def run(self) -> None:
        """Repairs until cancelled: what others change on the host is put back or followed."""
        if self._device is None or self._dataplane is None:
            raise HostError("the udp backend was not started")
        changed = self._netlink.changes()
        while True:
            await _first_of(changed, self._device.lost)
            changed.clear()
            try:
                await self._device.repair()
                await self._follow_addresses()
                await self._look_at_underlay()
            except HostError as error:
                log.warning("%s", error)
            self._dataplane.reclaim()

    async def stop(self) -> None:
        """Stops packets and closes all; flannel0 stays for the next start."""
        if self._device is not None:
            await self._device.close()
        if self._publication is not None:
            await asyncio.wait([self._publication])
        if self._dataplane is not None:
            self._dataplane.close()
            self._dataplane = None
        for bound in (*self._sockets, *self._senders):
            bound.close()
        self._sockets, self._senders = [], []

    async def undo(self) -> None:
        """After `stop`: takes back what a `start` that failed has made on the machine."""
        if self._device is not None:
            await self._device.remove()

    async def remove(self) -> None:
        """After `stop`: takes flannel0 away, with its address and routes."""
        await self._link.remove()

    def others(self) -> Which:
        """Devices of other backends, and their routes to single subnets, which the kernel prefers to flannel0's."""
        return Which(self._config.networks, keep=(self._link.name,))

    def undisturbed(self) -> AbstractAsyncContextManager[None]:
        """A thread turns the queue meanwhile."""
        return self._device.lent() if self._device is not None else nullcontext()

    async def facts(self) -> BackendFacts:
        """What there is to see now."""
        kernel = await self._kernel_drops()
        plane, it = self._dataplane, self._overlay
        peers = plane.peers() if plane else None
        return BackendFacts(
            overlay=None
            if it is None
            else Overlay(device=self._link.name, address=it.address, address6=it.address6, mtu=it.mtu),
            infos=self.infos(),
            counters=self.counters(),
            offloads=plane.offloads(0) if plane else (),
            movers=self._device.movers if self._device else None,
            peers=peers or NO_PEERS,
            heard=peers.heard if peers else 0,
            slow=peers.slow if peers else (),
            in_flight=plane.in_flight() if plane else 0,
            last_error=plane.last_error() if plane else None,
            kernel=kernel,
            problems=(
                *(self._device.problems if self._device else ()),
                *([self._underlay_problem] if self._underlay_problem else []),
            ),
            routes=self._routes,
        )

    def infos(self) -> tuple[CounterInfo, ...]:
        """What `counters` counts."""
        return counter_infos()

    def counters(self) -> list[int]:
        """The dataplane's counters; zeros where there is none."""
        return self._dataplane.counters() if self._dataplane else [0] * len(counter_infos())

    async def _publish(self) -> None:
        """Publishes the newest snapshot, at most one table every PUBLISH_INTERVAL_S."""
        loop = asyncio.get_running_loop()
        async with self._publishing:
            await asyncio.sleep(max(0.0, self._published_at + PUBLISH_INTERVAL_S - loop.time()))
            if self._snapshot is None or self._dataplane is None:
                return
            long = len(self._snapshot.leases) >= LONG_LEASES
            async with self.undisturbed() if long else nullcontext():
                table, routes = await asyncio.to_thread(self._pack, self._snapshot)
                began = time.perf_counter()  # the loop's clock stands still within one of its iterations
                # A stop cancels this wait, but no thread: what the thread works on must outlive it (see stop).
                self._publication = asyncio.ensure_future(asyncio.to_thread(self._dataplane.publish, table))
                await asyncio.shield(self._publication)
                took = time.perf_counter() - began
            self._published_at = loop.time()
            self._routes = routes
            self._published(took)

    def _pack(self, snapshot: Snapshot) -> tuple[bytearray, int]:
        """The route table: the other nodes' subnets, and as local ones our own and every address of this host.

        Also how many of the former there are. A node that carries no IPv6 knows no node's IPv6 subnet.
        """
        local = {Prefix(int(address), WIDTH[address.version], address.version) for address in self._local}
        own, port = self._own, self.port
        if own is not None:
            local |= {subnet for subnet in (own.subnet, own.ipv6_subnet) if subnet is not None}
        table = bytearray(b"".join(map(pack_route, local)))
        for it in snapshot.leases:
            if it.subnet not in local:
                table += pack_route(it.subnet, it.public_ip, port)
        if own is not None and own.ipv6_subnet is not None:
            for it in snapshot.leases:
                if it.ipv6_subnet and it.ipv6_subnet not in local and takes_ipv6(it):
                    table += pack_route(it.ipv6_subnet, it.public_ip, port)
        return table, len(table) // ROUTE.size - len(local)

    def _require_ipv6(self) -> None:
        if self.mtu < IPV6_MIN_MTU_BYTES:
            raise ConfigError(
                f"IPv6 needs an MTU of {IPV6_MIN_MTU_BYTES} bytes on {self._link.name}, which would have {self.mtu}: "
                f"expected a larger Backend.MTU or an interface of {IPV6_MIN_MTU_BYTES + OVERHEAD_BYTES} bytes, or no "
                "IPv6Subnet for this node"
            )
        require_ipv6(self._link.name)

    async def _follow_addresses(self) -> None:
        """Nobody else may claim an address this host has: the table follows its addresses."""
        local = await local_addresses(self._netlink)
        if local != self._local:
            self._local = local
            await self._publish()

    async def _look_at_underlay(self) -> None:
        """Notes whether datagrams can leave; what is wrong here is the administrator's to mend."""
        problem = await underlay_problem(self._netlink, self._endpoint)
        if problem and problem != self._underlay_problem:
            log.warning("%s", problem)
        elif self._underlay_problem and not problem:
            log.info("interface %s is back", self._endpoint.interface)
        self._underlay_problem = problem

    async def _kernel_drops(self) -> dict[KernelDrop, int]:
        drops = {}
        with suppress(HostError):
            drops = await self._link.drops()
        for name, before in self._dropped_before.items():
            if (now := drops.get(name, 0)) >= before:  # or the device was made anew, and has counted from nothing
                drops[name] = now - before
        drops["socket_rx_dropped"] = sum(_socket_drops(bound) for bound in self._sockets)
        return {it: drops[it.name] for it in KERNEL_DROPS if it.name in drops}


def takes_ipv6(lease: Lease) -> bool:
    """Whether the node says that it takes IPv6 out of datagrams: real flanneld, which has a subnet for it, does not."""
    if lease.backend_data is None:  # a registry without a place for it gives a subnet to those that do
        return lease.ipv6_subnet is not None
    try:
        said = json.loads(lease.backend_data)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("ipv6") is True and "udpbackend" in said


def _overlay(config: NetworkConfig, lease: Lease, mtu: int) -> overlay_plan.Overlay:
    """What flannel0 has to be for a lease."""
    base = IPv4Address(lease.subnet.address)
    if config.ipv6 is None or lease.ipv6_subnet is None:
        return overlay_plan.Overlay(base, config.network, mtu)
    return overlay_plan.Overlay(base, config.network, mtu, IPv6Address(lease.ipv6_subnet.address), config.ipv6.network)


def _socket_drops(bound: socket.socket) -> int:
    raw = bound.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (SK_MEMINFO_DROPS + 1))
    return int(struct.unpack_from("=I", raw, 4 * SK_MEMINFO_DROPS)[0])


def _bind(address: IPv4Address, port: int, count: int) -> list[socket.socket]:
    """Sockets that share an address and a port."""
    # Once without sharing: who has the port already, sharing or not, shows only so.
    first = _bound(address, port, share=False)
    if count == 1:
        return [first]
    first.close()
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            made.append(_bound(address, port, share=True))  # noqa: PERF401 what is made must be closed on failure
    except HostError:
        for bound in made:
            bound.close()
        raise
    return made


def _bound(address: IPv4Address, port: int, *, share: bool) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
        bound.bind((str(address), port))
    except OSError as error:
        bound.close()
        why = os.strerror(error.errno) if error.errno else str(error)
        raise HostError(f"failed to start listening on UDP socket: {address}:{port}: {why}") from error
    return bound


async def _first_of(*events: asyncio.Event) -> None:
    """Waits until one is set, at most REPAIR_INTERVAL_S."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=REPAIR_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
