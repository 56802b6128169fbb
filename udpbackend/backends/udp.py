"""The udp backend: who the peers are becomes a route table, a UDP socket and flannel0 carry their packets.

Owns the socket, the C dataplane and what is published to it. Must not know which registry the leases come from: it is
handed snapshots. What can be refused is refused in `prepare`; `start` is the first to change the machine, and `undo`
takes that back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from msgspec import structs

from udpbackend import __version__
from udpbackend.backends.backend import NO_PEERS, BackendFacts, Context, KernelDrop, Overlay
from udpbackend.backends.udp_config import UdpOptions
from udpbackend.backends.udp_device import Device, Plan, refuse_others_device, refused_calls
from udpbackend.backends.udp_drops import Drops
from udpbackend.backends.udp_mtu import check_ipv6, check_mtu, overlay_mtu
from udpbackend.backends.udp_peers import TAKES_IPV6
from udpbackend.backends.udp_sockets import Sockets
from udpbackend.backends.udp_table import pack_table
from udpbackend.dataplane.estate import Header, Parts, Record, State
from udpbackend.dataplane.native import ROW_BYTES, CounterInfo, Dataplane, Options, counter_infos
from udpbackend.dataplane.queues import Queues
from udpbackend.dataplane.tun import TunQueue, check_tun_access
from udpbackend.errors import HostError
from udpbackend.host import fou_left, overlay_plan
from udpbackend.host.addresses import local_addresses, underlay_problem
from udpbackend.host.flannel0 import OverlayLink
from udpbackend.host.flannel_name import free_name
from udpbackend.host.fou import FouPort
from udpbackend.host.leftovers import Which
from udpbackend.model import Attributes, Lease, NetworkConfig, Snapshot

log = logging.getLogger(__name__)

PUBLISH_INTERVAL_S = 0.05
LONG_LEASES = 1000
"""From so many on, the queue is lent a thread while tables are made or read."""
REPAIR_INTERVAL_S = 30.0
"""flannel0 is looked at whenever the kernel tells of a change, and at least so often: a look costs ten milliseconds,
and without a change there is nothing to see."""


class UdpBackend:
    """`prepare`, `start`, then `apply` for each snapshot while `run` repairs; `stop` in any state."""

    def __init__(self, context: Context) -> None:
        options = UdpOptions.parse(context.config.backend)
        self.port = options.port
        self.mtu = overlay_mtu(options, context.endpoint)
        """flannel0's, in bytes."""
        self._config = context.config
        self._endpoint = context.endpoint
        self._netlink = context.netlink
        self._changed = asyncio.Event()
        self._link = OverlayLink(context.netlink)
        self._options = Options.of(context.settings)
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
        self._sockets = Sockets()
        self._dataplane: Dataplane | None = None
        self._overlay: overlay_plan.Overlay | None = None
        self._drops = Drops()
        self._device: Device | None = None
        self._inherited = context.inherited
        self._identity = context.settings.identity()
        self._record = Record()
        self._kept = False
        """Whether the service manager keeps our fds."""
        self._handing_over = False
        self._kernels = fou_left.NOTHING

    async def prepare(self, held: Lease | None) -> Attributes:
        """Refuses what cannot work; changes nothing, but holds the UDP port from now on."""
        ipv6 = self._config.ipv6 is not None and (held is None or held.ipv6_subnet is not None)
        check_mtu(self.mtu, self._endpoint)
        self._link = OverlayLink(self._netlink, await free_name(self._netlink, self._config.networks))
        if ipv6:
            check_ipv6(self._link.name, self.mtu)
        check_tun_access()
        await self._abandon_others()
        if self._inherited.queues is None and not await self._find_kernels():
            await refuse_others_device(self._link)
            self._open_sockets()
        return Attributes(self._endpoint.public_ip, backend_data=TAKES_IPV6 if ipv6 else None)

    async def start(self, lease: Lease, snapshot: Snapshot) -> None:
        """Makes or takes over flannel0, publishes the routes and lets packets flow."""
        self._changed = self._netlink.changes()  # before flannel0 is looked at: `run`, which repairs it, comes later
        self._own = lease
        self._overlay = _overlay(self._config, lease, self.mtu)
        await self._abandon_others(self._overlay)
        await self._end_kernels()
        if self._inherited.queues is not None:
            await self._adopt(self._inherited.claim(), self._overlay, snapshot)
        else:
            await self._open(self._overlay, snapshot)

    async def _find_kernels(self) -> bool:
        """Whether the kernel has been the dataplane until now: what it has goes at the start."""
        port = FouPort(self.port, self._endpoint.address)
        self._kernels = await self._netlink.call(partial(fou_left.find, name=self._link.name, port=port))
        return self._kernels.in_the_way

    async def _end_kernels(self) -> None:
        for what in await fou_left.remove(self._netlink, self._kernels):
            log.info("the userspace dataplane takes over from the kernel's: removed %s", what)

    async def _open(self, overlay: overlay_plan.Overlay, snapshot: Snapshot) -> None:
        if not self._sockets:  # queues that were inherited fitted until the lease was known
            self._open_sockets()
        self._dataplane = Dataplane(
            tun_address=overlay.address,
            tun_address6=overlay.address6,
            options=self._options,
        )
        self._device = self._make_device(overlay, self._dataplane)
        await self._device.open()
        self._local = await local_addresses(self._netlink)
        await self.apply(snapshot)
        await self._drops.begin(self._link)
        self._device.start()

    async def _adopt(self, queues: Queues, overlay: overlay_plan.Overlay, snapshot: Snapshot) -> None:
        """Goes on with queues that turn already; its routes, until now the last daemon's, become ours."""
        self._dataplane, fds = queues.dataplane, queues.fds
        tuns = [fds[name] for name in queues.parts.fds if name.startswith("tun-")]
        self._sockets.adopt({name: fds[name] for name in queues.parts.fds})
        self._record.close()
        self._record = Record(fds)
        self._device = self._make_device(overlay, self._dataplane)
        await self._device.adopt([TunQueue(self._link.name, fd) for fd in tuns], queues.workers)
        self._local = await local_addresses(self._netlink)
        await self.apply(snapshot)
        log.info("the routes of %s are replaced by the registry's: %d before", queues.origin, queues.routes)

    def _make_device(self, overlay: overlay_plan.Overlay, dataplane: Dataplane) -> Device:
        plan = Plan(self._sockets.receivers, self._sockets.senders, self._workers > 0, self._cpus, self._nice)
        return Device(self._link, overlay, dataplane, plan)

    def _open_sockets(self) -> None:
        queues = max(1, self._workers)
        self._sockets.open(self._endpoint.address, self.port, queues=queues, senders=self._source_ports)

    async def _abandon_others(self, overlay: overlay_plan.Overlay | None = None) -> None:
        """Lets go of inherited queues that were opened for something else than this network, as far as it is known."""
        queues = self._inherited.queues
        if queues is None:
            return
        ours, theirs = self._parts(overlay, queues.parts.fds), queues.parts
        if overlay is None:
            theirs = structs.replace(theirs, tun_address="", tun_address6=None)
        if ours != theirs:
            changed = [name for name in ours.__struct_fields__ if getattr(ours, name) != getattr(theirs, name)]
            log.warning("the network has changed (%s): packets are lost until this start is done", ", ".join(changed))
            await asyncio.to_thread(self._inherited.abandon)

    def _parts(self, overlay: overlay_plan.Overlay | None, fds: Sequence[str]) -> Parts:
        """What our queues are opened with."""
        return Parts(
            device=self._link.name,
            tun_address=str(overlay.address) if overlay else "",
            tun_address6=str(overlay.address6) if overlay and overlay.address6 else None,
            local_address=str(self._endpoint.address),
            port=self.port,
            fds=tuple(fds),
        )

    def _fds(self) -> dict[str, int]:
        """All of the queues, by the names they have in another process; borrowed."""
        return {} if self._device is None else self._device.fds | self._sockets.fds

    def _header(self) -> Header:
        return Header(
            version=__version__,
            settings=self._identity,
            parts=self._parts(self._overlay, tuple(self._fds())),
            published_at=time.time(),
        )

    async def _keep(self, anew: Collection[str] = ()) -> None:
        """Lets the service manager keep what the next start can go on with, if there is one that does."""
        fds = {**self._fds(), **self._record.fds}
        self._kept = await asyncio.to_thread(partial(self._inherited.store.keep, fds, anew=anew))

    async def offer(self) -> tuple[Mapping[str, int], State]:
        """As HandsOver."""
        device, dataplane = self._started()
        async with self._long_work():
            return {**self._record.fds, **device.offer(), **self._sockets.fds}, self._told(dataplane)

    async def release(self, next_fds: Sequence[int]) -> State:
        """As HandsOver. Nothing is published until `resume`."""
        device, dataplane = self._started()
        await self._publishing.acquire()
        try:
            await device.release(next_fds)
        except BaseException:
            self._publishing.release()
            raise
        self._handing_over = True
        return self._told(dataplane)

    def _told(self, dataplane: Dataplane) -> State:
        names = (info.name for info in counter_infos())
        header = structs.replace(self._header(), counters=dict(zip(names, dataplane.counters(), strict=True)))
        return State(header=header, routes=b"", peers=dataplane.peers().packed(), row_bytes=ROW_BYTES)

    async def resume(self) -> None:
        """As HandsOver."""
        if self._handing_over and self._device is not None:
            self._handing_over = False
            self._record.catch_up()  # a successor that came as far as to publish has died since
            self._device.resume()
            self._publishing.release()

    async def apply(self, snapshot: Snapshot) -> None:
        """Publishes the routes of a snapshot."""
        self._snapshot = snapshot
        await self._publish()

    async def run(self) -> None:
        """Repairs until cancelled: what others change on the host is put back or followed."""
        device, dataplane = self._started()
        await self._keep()  # not sooner: a manager listens to the daemon that it knows, and that may be the last one
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(device.follow_session())
            await self._repair(device, dataplane)

    def _started(self) -> tuple[Device, Dataplane]:
        if self._device is None or self._dataplane is None:
            raise HostError("the udp backend was not started")
        return self._device, self._dataplane

    async def _repair(self, device: Device, dataplane: Dataplane) -> None:
        while True:
            await _first_of(self._changed, device.lost)
            self._changed.clear()
            try:
                if await device.repair():
                    await self._keep(anew=device.fds)
                await self._follow_addresses()
                await self._look_at_underlay()
            except HostError as error:
                log.warning("%s", error)
            dataplane.reclaim()

    async def stop(self) -> None:
        """Stops packets and closes all; flannel0 stays for the next start."""
        if self._device is not None:
            await self._device.close()
        if self._publication is not None:
            await asyncio.wait([self._publication])
        if self._dataplane is not None:
            self._dataplane.close()
            self._dataplane = None
        self._sockets.close()
        self._record.close()

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
        kernel = await self.kernel_drops()
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
            seen=peers.seen if peers else 0,
            slow=peers.slow if peers else (),
            in_flight=plane.in_flight() if plane else 0,
            last_error=plane.last_error() if plane else None,
            kernel=kernel,
            problems=(
                *(self._device.problems if self._device else ()),
                *([self._underlay_problem] if self._underlay_problem else []),
                *refused_calls(),
            ),
            routes=self._routes,
            dataplane="userspace",
            source_check=self._options.source_check,
            kept_by="service manager" if self._kept else "device",
        )

    def infos(self) -> tuple[CounterInfo, ...]:
        """What `counters` counts."""
        return counter_infos()

    def counters(self) -> list[int]:
        """The dataplane's counters; zeros where there is none."""
        return self._dataplane.counters() if self._dataplane else [0] * len(counter_infos())

    async def kernel_drops(self) -> Mapping[KernelDrop, int]:
        """At flannel0 and at the sockets, while somebody reads them."""
        return await self._drops.now(self._link, self._sockets)

    async def _publish(self) -> None:
        """Publishes the newest snapshot, at most one table every PUBLISH_INTERVAL_S."""
        loop = asyncio.get_running_loop()
        async with self._publishing:
            await asyncio.sleep(max(0.0, self._published_at + PUBLISH_INTERVAL_S - loop.time()))
            if self._snapshot is None or self._dataplane is None:
                return
            async with self._long_work():
                table, routes = await asyncio.to_thread(pack_table, self._snapshot, self._own, self._local, self.port)
                header = self._header()
                began = time.perf_counter()  # the loop's clock stands still within one of its iterations
                # A stop cancels this wait, but no thread: what the thread works on must outlive it (see stop).
                self._publication = asyncio.ensure_future(
                    asyncio.to_thread(self._install, self._dataplane, table, header)
                )
                await asyncio.shield(self._publication)
                took = time.perf_counter() - began
            self._published_at = loop.time()
            self._routes = routes
            self._published(took)

    def _long_work(self) -> AbstractAsyncContextManager[None]:
        """For what is long where there are many leases."""
        many = self._snapshot is not None and len(self._snapshot.leases) >= LONG_LEASES
        return self.undisturbed() if many else nullcontext()

    def _install(self, dataplane: Dataplane, table: bytearray, header: Header) -> None:
        dataplane.publish(table)
        self._record.write(header, table)

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


def _overlay(config: NetworkConfig, lease: Lease, mtu: int) -> overlay_plan.Overlay:
    """What flannel0 has to be for a lease."""
    base = IPv4Address(lease.subnet.address)
    if config.ipv6 is None or lease.ipv6_subnet is None:
        return overlay_plan.Overlay(base, config.network, mtu)
    return overlay_plan.Overlay(base, config.network, mtu, IPv6Address(lease.ipv6_subnet.address), config.ipv6.network)


async def _first_of(*events: asyncio.Event) -> None:
    """Waits until one is set, at most REPAIR_INTERVAL_S."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=REPAIR_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
