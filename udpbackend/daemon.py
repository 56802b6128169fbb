"""The composition root: settings become parts, the parts run, and are shut down in turn.

Owns the order of a start and of a stop, and who is told what. It must not know how any part does its work. In `_start`,
above the line, configuration is consumed and refused; below it the machine is changed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address

import uvloop

from udpbackend import __version__, log
from udpbackend.backends.backend import Backend, Context, check_config, is_bound, make_backend, overhead
from udpbackend.dataplane.inherit import Inheritance
from udpbackend.errors import ConfigError, HostError, LeaseRevokedError, RestartNeededError
from udpbackend.findings.here import Here
from udpbackend.findings.watch import HostWatch
from udpbackend.host.addresses import select_endpoint
from udpbackend.host.claims import Claim, Held
from udpbackend.host.leftovers import remove_leftovers
from udpbackend.host.netlink import Netlink
from udpbackend.host.rules import Ground, HostRules
from udpbackend.host.turn import turn_in_loop
from udpbackend.memory import keep_large_blocks_apart
from udpbackend.model import Endpoint, Lease, NetworkConfig, Snapshot
from udpbackend.notify import notify
from udpbackend.observe.http import Server
from udpbackend.observe.losses import Losses
from udpbackend.observe.metrics import Metrics
from udpbackend.observe.sampler import Sampler
from udpbackend.running import Running
from udpbackend.settings import Settings
from udpbackend.subnets.envfile import SubnetEnv, networks_of, read_env, remove_env, render, subnets_of
from udpbackend.subnets.manager import load_manager, open_manager
from udpbackend.succession import Succession

logger = logging.getLogger(__name__)

PublicAddresses = tuple[IPv4Address | None, IPv6Address | None]

ENDING = (signal.SIGTERM, signal.SIGINT)

SWITCH_INTERVAL_S = 0.0005
"""How long another thread's Python may keep the interpreter from the pump; CPython's own default is ten times that."""


def run(settings: Settings, inherited: Inheritance | None = None, ready: Callable[[], None] | None = None) -> int:
    """Runs the daemon until SIGTERM or SIGINT, or until its lease is revoked; 0 then, UdpBackendError otherwise.

    `inherited`: what another process has left; closed in the end. `ready`: called once packets flow by our own routes,
    for whoever has started this process in place of another one that shall then end.
    """
    log.setup(settings.verbosity)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    keep_large_blocks_apart()
    uvloop.run(Daemon(settings, inherited or Inheritance(), ready).main())
    return 0


def load(settings: Settings) -> None:
    """Loads what a run needs beside this module, for a start that has the time: nothing waits for it yet."""
    load_manager(settings)
    for name in ("udp_choice", "udp"):  # the backend that goes on with queues
        import_module(f"udpbackend.backends.{name}")
    gc.collect()
    gc.freeze()  # or the collector would look at all of it again when packets share the core with us


class Daemon:
    """One run of the program."""

    def __init__(self, settings: Settings, inherited: Inheritance, ready: Callable[[], None] | None) -> None:
        self._settings = settings
        self._stop: asyncio.Event
        self._inherited = inherited
        self._ready = ready

    async def main(self) -> None:
        """Starts, runs until a signal, stops."""
        stop = self._stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, stop.set)
        logger.info("udp-backend %s", __version__)
        for note in self._inherited.notes:
            logger.info("%s", note)
        stopped = asyncio.create_task(stop.wait())
        while await self._once(stopped):
            pass
        stopped.cancel()
        # The loop gives the signals back as it closes; all is done by then, and one more must not change the status.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)

    async def _once(self, stopped: asyncio.Task[bool]) -> bool:
        """One start and stop of all parts; whether there is to be another."""
        succession = Succession(self._settings)
        async with AsyncExitStack() as parts:
            parts.callback(self._inherited.close)
            work = asyncio.create_task(self._run(parts, succession))
            leaving = asyncio.create_task(succession.leaving.wait())
            await asyncio.wait((work, leaving, stopped), return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            if stopped.done():
                await asyncio.to_thread(notify, "STOPPING=1")
                logger.info("stopping on a signal")
            await succession.close()
            work.cancel()
            await asyncio.wait((work,))
            again = await self._again(None if work.cancelled() else work.exception()) and not stopped.done()
        if succession.lets_go:  # or the manager would hold flannel0 against the successor, and later against us
            await asyncio.to_thread(self._inherited.store.forget)
        return await succession.linger(stopped) or again

    async def _again(self, error: BaseException | None) -> bool:
        """Whether a run that ended so is to be followed by another; raises what the program ends with."""
        if error is None:
            return False
        error = _first(error)
        if isinstance(error, RestartNeededError):
            logger.warning("starting over: %s", error)
            await asyncio.to_thread(self._inherited.store.forget)  # or what it keeps would be in our way
            return True
        if not isinstance(error, LeaseRevokedError):
            raise error
        logger.warning("%s", error)
        await asyncio.to_thread(self._inherited.store.forget)
        return False

    async def _run(self, parts: AsyncExitStack, succession: Succession) -> None:
        """Leaves in `parts`, latest first, what is to be stopped, and taken back if the start does not succeed."""
        metrics = Metrics()
        manager = open_manager(self._settings)
        parts.push_async_callback(manager.close)
        run = Running(settings=self._settings, manager=manager, inherited=self._inherited)
        netlink = await parts.enter_async_context(Netlink())
        parts.push_async_callback(self._clean_up, run, succession)
        undo = await parts.enter_async_context(AsyncExitStack())
        subnet_env = SubnetEnv.prepare(self._settings.subnet_file)
        undo.callback(subnet_env.abort)
        claimed = await self._serve(parts, run, metrics, succession)
        config = run.config = await manager.open(self._check)
        endpoint = run.endpoint = await self._endpoint(netlink, config, manager.public_addresses)
        run.waits_for = "a lease"
        held = await manager.held(endpoint.public_ip)
        backend = await make_backend(
            Context(
                config=config,
                endpoint=endpoint,
                netlink=netlink,
                settings=self._settings,
                published=metrics.observe_publish,
                inherited=self._inherited,
            )
        )
        parts.push_async_callback(backend.stop)
        async with turn_in_loop():  # two daemons that look at once for what is free would choose the same
            attributes = await backend.prepare(held)
            devices = _claim(claimed, run, backend, config)
        run.sampler = Sampler(backend.infos(), backend.counters)
        run.losses = Losses(backend.infos(), backend.counters, backend.kernel_drops)
        before = read_env(self._settings.subnet_file)
        lease = run.lease = await manager.acquire(attributes)
        run.waits_for = "the other nodes' leases"
        snapshots = await parts.enter_async_context(aclosing(manager.watch(lease)))
        first = run.snapshot = await anext(snapshots)
        rules = run.rules = HostRules(
            Ground(netlink, devices or (endpoint.interface,), subnets_of(before), networks_of(before)),
            *(self._settings, config, lease),
        )

        # ---- all configuration is consumed: from here on the machine is changed ----

        undo.push_async_callback(backend.undo)
        run.waits_for = "the dataplane"
        await backend.start(lease, run.mine(first))
        run.waits_for = "the host's rules"
        undo.push_async_callback(rules.undo)
        await rules.start()
        for what in await remove_leftovers(netlink, backend.others()):
            logger.info("removed what another backend had left: %s", what)
        subnet_env.commit(_subnet_env(config, lease, backend.mtu, self._settings))
        undo.pop_all()
        watch = run.watch = await _watch(run, netlink, config, endpoint)
        await _ready(run, config, endpoint, lease)
        await self._tell_others()
        del first  # or thousands of leases would be kept that the next snapshot replaces
        try:
            async with asyncio.TaskGroup() as tasks:
                for name, work in (
                    ("registry", _follow(run, backend, snapshots)),
                    ("lease", manager.run()),
                    ("registry is told", manager.complete(watch.sound)),
                    ("host", watch.run()),
                    ("backend", backend.run()),
                    ("rules", rules.run()),
                    ("sampler", run.sampler.run()),
                    ("losses", run.losses.run()),
                ):
                    tasks.create_task(work, name=name)
        except* LeaseRevokedError:
            undo.push_async_callback(backend.remove)
            undo.push_async_callback(rules.remove)
            raise

    async def _clean_up(self, run: Running, succession: Succession) -> None:
        """At the end, if a signal has brought it and that was asked for: takes away what outlives a restart."""
        if not self._stop.is_set() or not self._settings.cleanup_on_exit or succession.handed_over:
            return
        if run.backend is None:
            logger.warning("nothing was started, so nothing is cleaned up: `udp-backend cleanup` finds what is left")
            return
        steps = [run.backend.remove, *([run.rules.remove] if run.rules is not None else [])]
        failures = [str(error) for step in steps if (error := await _failure(step)) is not None]
        if failures:  # the subnet file stays: `udp-backend cleanup` knows by it what is still there
            raise HostError(f"the overlay is not taken away: {'; '.join(failures)}; `udp-backend cleanup` tries again")
        remove_env(self._settings.subnet_file)
        logger.info("the overlay is taken away: device, routes, rules and %s", self._settings.subnet_file)

    async def _tell_others(self) -> None:
        """Whoever has started us, and the daemon before us, wait for this: once, however often we start over."""
        ready, self._ready = self._ready, None
        if ready is not None:
            await asyncio.to_thread(ready)
        await asyncio.to_thread(self._inherited.confirm, leave=ready is not None)

    def _check(self, config: NetworkConfig) -> None:
        try:
            check_config(config)
        except ConfigError as error:
            raise ConfigError(f"{self._settings.config_place}: {error}") from None

    async def _endpoint(self, netlink: Netlink, config: NetworkConfig, public: PublicAddresses) -> Endpoint:
        """Where this host meets its peers; not inside the network, or datagrams would go into the overlay again."""
        settings = replace(
            self._settings,
            public_ip=public[0] or self._settings.public_ip,
            public_ipv6=public[1] or self._settings.public_ipv6,
        )
        endpoint = await select_endpoint(netlink, settings)
        for address in (endpoint.address, endpoint.public_ip):
            if config.network.holds(address):
                raise ConfigError(
                    f"Network {config.network} contains this host's address {address}: "
                    "choose a Network that no host's own address lies in"
                )
        return endpoint

    async def _serve(self, parts: AsyncExitStack, run: Running, metrics: Metrics, succession: Succession) -> _Claimed:
        """Answers whoever asks; what is to be claimed is given up together with that for a successor."""
        claimed = _Claimed()
        parts.callback(claimed.release)
        server = Server(
            run,
            metrics,
            socket_path=self._settings.status_socket,
            healthz_ip=self._settings.healthz_ip,
            healthz_port=self._settings.healthz_port,
            ui=self._settings.ui,
        )
        server.answer_handover(succession.asked)

        async def listen() -> None:
            claimed.take()
            await server.start()

        async def unlisten() -> None:
            claimed.release()
            await server.stop()

        succession.watch(run, listen=listen, unlisten=unlisten)
        await asyncio.to_thread(self._inherited.served)
        parts.push_async_callback(server.stop)
        await server.start()
        return claimed


class _Claimed:
    """A claim that is given up while another process moves the packets, and taken again when it does so no more."""

    def __init__(self) -> None:
        self._claim: Claim | None = None
        self._held: Held | None = None

    def take(self, claim: Claim | None = None) -> None:
        """Claims it, or again what was claimed before. Raises HostError if another daemon has it."""
        self._claim = claim or self._claim
        if self._claim is not None and self._held is None:
            self._held = Held(self._claim)

    def release(self) -> None:
        """Gives it up."""
        held, self._held = self._held, None
        if held is not None:
            held.release()


async def _failure(step: Callable[[], Awaitable[None]]) -> HostError | None:
    """Takes a step that others do not depend on."""
    try:
        await step()
    except HostError as error:
        return error
    return None


def _claim(claimed: _Claimed, run: Running, backend: Backend, config: NetworkConfig) -> tuple[str, ...]:
    """Refuses what another daemon of this host has: the same network, the same device. Our devices."""
    devices = tuple(backend.others().keep)
    claimed.take(Claim(devices, config.networks))
    run.backend = backend  # from here on what it has in the host is ours alone
    return devices


async def _watch(run: Running, netlink: Netlink, config: NetworkConfig, endpoint: Endpoint) -> HostWatch:
    """What looks at this host for as long as the daemon runs."""
    if run.backend is None or run.lease is None:
        raise HostError("there is nothing to look after yet")
    lease, overlay = run.lease, (await run.backend.facts()).overlay
    here = Here(
        network=config.network,
        subnet=lease.subnet,
        interface=endpoint.interface,
        address=endpoint.address,
        public_ip=endpoint.public_ip,
        port=run.backend.port if is_bound(config.backend.type) else None,
        overlay=overlay.device if overlay else None,
        overlay_mtu=run.backend.mtu,
        overhead=overhead(config.backend.type),
    )

    def peers() -> Iterator[IPv4Address]:
        return (it.public_address for it in run.mine(run.snapshot).leases if it.subnet != lease.subnet)

    return HostWatch(netlink, here, peers, ipv6=lease.ipv6_subnet is not None)


async def _follow(run: Running, backend: Backend, snapshots: AsyncGenerator[Snapshot, None]) -> None:
    async for snapshot in snapshots:
        run.snapshot = snapshot
        await backend.apply(run.mine(snapshot))
        notify(_in_a_line(run), patience_s=0.0)  # the next one tells it again
        logger.info("%s, revision %d: routes published", _nodes(len(snapshot.leases)), snapshot.revision)


def _subnet_env(config: NetworkConfig, lease: Lease, mtu: int, settings: Settings) -> str:
    ipv6 = config.ipv6
    share6 = (ipv6.network, lease.ipv6_subnet) if ipv6 and lease.ipv6_subnet else None
    return render(config.network, lease.subnet, mtu, ip_masq=settings.ip_masq, ipv6=share6)


def _in_a_line(run: Running) -> str:
    """What a service manager shows beside the state."""
    return f"STATUS=subnet {run.lease.subnet if run.lease else 'none'}, {_nodes(len(run.snapshot.leases))}"


def _nodes(number: int) -> str:
    return f"{number} node{'s' * (number != 1)}"


async def _ready(run: Running, config: NetworkConfig, endpoint: Endpoint, lease: Lease) -> None:
    run.waits_for = None
    gc.collect()
    gc.freeze()  # what is here now stays: the collector need not look at it again and again while packets wait
    port = f", port {run.backend.port}" if run.backend and run.backend.port is not None else ""
    logger.info(
        "ready: subnet %s of %s, %s on %s (%s), %s",
        lease.subnet, config.network, endpoint.address, endpoint.interface,
        f"public IP {endpoint.public_ip}{port}", _nodes(len(run.snapshot.leases)),
    )  # fmt: skip
    if config.ipv6 and lease.ipv6_subnet:
        logger.info("IPv6: subnet %s of %s", lease.ipv6_subnet, config.ipv6.network)
    elif config.ipv6:
        logger.info("no IPv6 here: this node has no IPv6Subnet")
    await asyncio.to_thread(notify, "READY=1", _in_a_line(run))


def _first(error: BaseException) -> BaseException:
    """The error to end with: of several tasks that failed together, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
