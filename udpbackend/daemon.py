"""The composition root: settings become parts, the parts run, and are shut down in turn.

Owns the order of a start and of a stop, and who is told what. It must not know how any part does its work. In `_run`,
above the line, configuration is consumed and refused; below it the machine is changed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import uvloop

from udpbackend import __version__, log
from udpbackend.backends.udp import UdpBackend
from udpbackend.errors import ConfigError, UsageError
from udpbackend.host.addresses import select_endpoint
from udpbackend.host.netlink import Netlink
from udpbackend.model import Endpoint, Lease, NetworkConfig, Snapshot
from udpbackend.observe.facts import Facts, Overlay, RegistryView
from udpbackend.observe.http import Server
from udpbackend.observe.metrics import Metrics
from udpbackend.observe.notify import notify
from udpbackend.observe.sampler import Sampler
from udpbackend.settings import Settings
from udpbackend.subnets.envfile import SubnetEnv, render
from udpbackend.subnets.static import StaticFile, StaticSubnets

logger = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""How long another thread's Python may keep the interpreter from the pump; CPython's own default is ten times that."""


def run(settings: Settings) -> int:
    """Runs the daemon until SIGTERM or SIGINT; 0 then, UdpBackendError where it could not run."""
    log.setup(settings.verbosity)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    uvloop.run(Daemon(settings).main())
    return 0


class Daemon:
    """One run of the program; also what the observers ask."""

    def __init__(self, settings: Settings) -> None:
        if settings.static_subnets is None:
            raise UsageError("--static-subnets is needed: the file that says which node owns which subnet")
        self._settings = settings
        self._registry = StaticSubnets(settings.static_subnets, settings.node_name)
        self._metrics = Metrics()
        self._started = time.monotonic()
        self._started_at = datetime.now(UTC)
        self._waiting_for: str | None = "its configuration"
        self._endpoint: Endpoint
        self._config: NetworkConfig
        self._lease: Lease
        self._snapshot: Snapshot
        self._backend: UdpBackend
        self._sampler: Sampler

    async def main(self) -> None:
        """Starts, runs until a signal, stops."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with AsyncExitStack() as parts:
            work = asyncio.create_task(self._run(parts))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
            notify("STOPPING=1")
            if stop.is_set():
                logger.info("stopping on a signal")
            work.cancel()
            stopped.cancel()
            await asyncio.gather(work, stopped, return_exceptions=True)
            if not work.cancelled() and (error := work.exception()):
                raise _first(error)

    async def _run(self, parts: AsyncExitStack) -> None:
        """Leaves in `parts`, latest first, what is to be stopped, and taken back if the start does not succeed."""
        logger.info("udp-backend %s", __version__)
        netlink = await parts.enter_async_context(Netlink())
        undo = await parts.enter_async_context(AsyncExitStack())
        file = await asyncio.to_thread(self._registry.load)
        self._endpoint = await select_endpoint(netlink, self._settings)
        self._config, self._lease = file.config, self._registry.own(file, self._endpoint.public_ip)
        self._snapshot = self._registry.snapshot(file)
        self._refuse_loop()
        self._backend = backend = self._make_backend(netlink)
        parts.push_async_callback(backend.stop)
        await backend.prepare(ipv6=self._lease.ipv6_subnet is not None)
        subnet_env = SubnetEnv.prepare(self._settings.subnet_file)
        undo.callback(subnet_env.abort)
        self._sampler = Sampler(backend.infos(), backend.counters)
        await self._serve(parts)

        # ---- all configuration is consumed: from here on the machine is changed ----

        undo.push_async_callback(backend.undo)
        self._waiting_for = "the dataplane"
        await backend.start(self._lease, self._snapshot)
        subnet_env.commit(self._subnet_env(backend.mtu))
        undo.pop_all()
        self._ready()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(file), name="registry")
            tasks.create_task(backend.run(), name="backend")
            tasks.create_task(self._sampler.run(), name="sampler")

    def _make_backend(self, netlink: Netlink) -> UdpBackend:
        publish = self._metrics.observe_publish
        try:
            return UdpBackend(self._config, self._endpoint, netlink, self._settings, published=publish)
        except ConfigError as error:
            raise ConfigError(f"{self._settings.static_subnets}: {error}") from None

    async def _serve(self, parts: AsyncExitStack) -> None:
        server = Server(
            self,
            self._metrics,
            socket_path=self._settings.status_socket,
            healthz_ip=self._settings.healthz_ip,
            healthz_port=self._settings.healthz_port,
        )
        parts.push_async_callback(server.stop)
        await server.start()

    async def _follow(self, file: StaticFile) -> None:
        async for snapshot in self._registry.watch(file, self._lease):
            self._snapshot = snapshot
            await self._backend.apply(snapshot)
            logger.info("%d nodes, revision %d: routes published", len(snapshot.leases), snapshot.revision)

    def _subnet_env(self, mtu: int) -> str:
        lease, ipv6 = self._lease, self._config.ipv6
        share6 = (ipv6.network, lease.ipv6_subnet) if ipv6 and lease.ipv6_subnet else None
        return render(self._config.network, lease.subnet, mtu, ip_masq=False, ipv6=share6)

    def _ready(self) -> None:
        self._waiting_for = None
        gc.collect()
        gc.freeze()  # what is here now stays: the collector need not look at it again and again while packets wait
        lease, ipv6 = self._lease, self._config.ipv6
        logger.info(
            "ready: subnet %s of %s, %s on %s (%s), %d nodes",
            lease.subnet, self._config.network, self._endpoint.address, self._endpoint.interface,
            f"public IP {self._endpoint.public_ip}, port {self._backend.options.port}", len(self._snapshot.leases),
        )  # fmt: skip
        if ipv6 and lease.ipv6_subnet:
            logger.info("IPv6: subnet %s of %s", lease.ipv6_subnet, ipv6.network)
        elif ipv6:
            logger.info("no IPv6 here: this node has no IPv6Subnet")
        notify("READY=1", f"STATUS=subnet {self._lease.subnet}, {len(self._snapshot.leases)} nodes")

    def _refuse_loop(self) -> None:
        """Datagrams to an address inside the network would go into flannel0 again."""
        for address in (self._endpoint.address, self._endpoint.public_ip):
            if self._config.network.holds(address):
                raise ConfigError(
                    f"Network {self._config.network} contains this host's address {address}: "
                    "choose a Network that no host's own address lies in"
                )

    def waiting_for(self) -> str | None:
        """What a start still waits for."""
        return self._waiting_for

    async def facts(self) -> Facts:
        """One moment of the daemon, for the observers."""
        seen = await self._backend.facts()
        state = self._registry.state
        overlay = seen.overlay
        return Facts(
            version=__version__,
            node=self._lease.node or os.uname().nodename,
            started_at=self._started_at,
            uptime_s=time.monotonic() - self._started,
            waiting_for=self._waiting_for,
            problems=seen.problems,
            network=self._config,
            subnet=self._lease.subnet,
            ipv6_subnet=self._lease.ipv6_subnet,
            port=self._backend.options.port,
            source_check=self._settings.source_check,
            endpoint=self._endpoint,
            overlay=None
            if overlay is None
            else Overlay(device="flannel0", address=overlay.address, address6=overlay.address6, mtu=overlay.mtu),
            offloads=seen.offloads,
            registry=RegistryView(
                kind=state.kind,
                source=state.source,
                revision=state.revision,
                synced_at=datetime.fromtimestamp(state.last_sync, UTC) if state.last_sync else None,
                age_s=max(0.0, time.time() - state.last_sync) if state.last_sync else None,
                degraded=state.degraded,
            ),
            leases=self._snapshot.leases,
            routes=seen.routes,
            infos=self._backend.infos(),
            counters=self._backend.counters(),
            peers=seen.peers,
            in_flight=seen.in_flight,
            last_error=seen.last_error,
            kernel=seen.kernel,
            rates=self._sampler.rates,
            loop_lag_s=self._sampler.lag_s,
        )


def _first(error: BaseException) -> BaseException:
    """The error to end with: of several tasks that failed together, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
