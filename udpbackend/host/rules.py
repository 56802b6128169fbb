"""The rules of one run: masquerading, forwarding, the blackhole for unused addresses; put there and kept there.

Owns when they are looked at and what it means that they cannot be written, do not last, or do not help. Must not know
the rules themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from udpbackend.errors import BusyError, HostError
from udpbackend.host import claims, firewall
from udpbackend.host.blackhole import Blackhole
from udpbackend.host.firewall import Firewall
from udpbackend.host.firewall_rules import FirewallPlan
from udpbackend.host.firewall_shared import keep_others
from udpbackend.host.lasting import Lasting
from udpbackend.host.leftovers_devices import read_devices
from udpbackend.host.netlink import Netlink
from udpbackend.model import WIDTH, Lease, NetworkConfig, Prefix
from udpbackend.settings import Settings

logger = logging.getLogger(__name__)

AGAIN_S = 1.0
"""After another program's lock has kept us from our rules."""
PATIENCE = 3
"""So many looks one after the other may be kept from the rules before that is worth a word."""
PATH_S = 15.0
"""How often is looked whether other programs' rules end our packets: that takes a program's run for each chain."""


@dataclass(frozen=True, slots=True)
class Ground:
    """The host that the rules are for."""

    netlink: Netlink
    devices: Sequence[str]
    """Ours, the one first by which packets leave for other nodes."""
    subnets_before: Sequence[Prefix] = ()
    """What this host had in its last run."""
    networks_before: Sequence[Prefix] = ()
    """What these were of."""


class HostRules:
    """`start`, then `run` for the daemon's life; the rules stay when it stops."""

    def __init__(self, ground: Ground, settings: Settings, config: NetworkConfig, lease: Lease) -> None:
        self._plan = FirewallPlan(
            network=config.network,
            subnet=lease.subnet,
            network6=config.ipv6.network if config.ipv6 and lease.ipv6_subnet else None,
            subnet6=lease.ipv6_subnet if config.ipv6 else None,
            masquerade=settings.ip_masq,
            fully_random=not settings.ip_masq_fully_random_disable,
            forward=settings.iptables_forward_rules,
            device=ground.devices[0],
        )
        self._ground = ground
        self._networks = (*config.networks, *ground.networks_before)
        self._nftables = config.nftables
        self._firewall = Firewall(self._plan, nftables=config.nftables, previous=self._networks)
        wanted = lease.subnets if settings.ip_blackhole_route else ()
        self._blackhole = Blackhole(ground.netlink, wanted, (*lease.subnets, *ground.subnets_before))
        self._changes = ground.netlink.changes()
        self._resync_s = settings.iptables_resync
        self._lasting = Lasting()
        self._told: tuple[str, ...] = ()
        self._missing: tuple[str, ...] = ()
        self._path: tuple[str, ...] = ()
        self._path_at: float | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with them now, one clause each; that a host without iptables has no forward rules is not."""
        lasting = self._lasting.problems
        return (*self._missing, *lasting, *self._path)

    async def start(self) -> None:
        """Puts the rules there. Raises HostError where pods would be lost without: masquerading was asked for.

        Another program's lock is waited for, however long it is held.
        """
        problem = None if self._nftables else firewall.bridge_problem(ipv6=self._plan.subnet6 is not None)
        if problem is not None and self._plan.masquerade:
            logger.warning("%s", problem)
        try:
            await self._apply(await self._used())
        except HostError as error:
            if self._plan.masquerade:
                raise
            self._note((f"rules: {error}",))
        await self._blackhole.ensure()
        await self._look_at_the_path()

    async def run(self) -> None:
        """Puts back what has gone missing, until cancelled."""
        self._changes.set()
        kept_from = 0
        while True:
            await asyncio.sleep(self._resync_s)
            problems: list[str] = []
            routes: list[str] = []
            parts: list[Firewall | Blackhole] = [self._firewall]
            if self._changes.is_set():  # a route does not vanish without a word of the kernel's
                parts.append(self._blackhole)
                self._changes.clear()
            for part in parts:
                try:
                    for what in self._lasting.note(await part.ensure()):
                        logger.info("repaired the rules: %s", what)
                    kept_from = 0 if part is self._firewall else kept_from
                except BusyError as error:
                    kept_from += 1
                    problems += [f"rules: {error}"] * (kept_from >= PATIENCE)
                except HostError as error:
                    problems.append(f"rules: {error}")
                    routes += problems[-1:] if part is self._blackhole else []
                    self._changes.set()
            self._missing = tuple(problems if self._plan.masquerade else routes)
            self._note((*problems, *self._lasting.problems))
            await self._look_at_the_path()

    async def undo(self) -> None:
        """Takes back what a start that failed has made."""
        try:
            await self._firewall.undo()
        finally:
            await self._blackhole.undo()

    async def remove(self) -> None:
        """Takes all of them away, but for other networks'."""
        try:
            await firewall.remove(keep_others(self._networks))
        finally:
            await self._blackhole.remove()

    async def _apply(self, used: Sequence[Prefix]) -> None:
        told = False
        while True:
            try:
                await self._firewall.apply(used)
            except BusyError as error:
                if not told:
                    logger.warning("waiting for another program that changes rules: %s", error)
                told = True
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def _used(self) -> list[Prefix]:
        """Addresses of this host but those of our own devices, and the networks of its other daemons."""
        ours = self._ground.devices
        devices = await read_devices(self._ground.netlink)
        held = [address for it in devices if it.name not in ours for address in it.addresses]
        others = claims.networks_of(await asyncio.to_thread(claims.claims), but=ours)
        return [*(Prefix(int(it), WIDTH[it.version], it.version) for it in held), *others]

    async def _look_at_the_path(self) -> None:
        """Whether packets of the overlay come through what other programs have in their way."""
        now = asyncio.get_running_loop().time()
        if self._path_at is not None and now < self._path_at + PATH_S:
            return
        self._path_at = now
        try:
            found = tuple(f"firewall: {it.what}" for it in await self._firewall.obstacles())
        except HostError as error:
            logger.debug("cannot look at other programs' rules: %s", error)
            return
        for problem in found:
            if problem not in self._path:
                logger.warning("%s; `udp-backend doctor` says what helps", problem)
        self._path = found

    def _note(self, problems: tuple[str, ...]) -> None:
        for problem in problems:
            if problem not in self._told:
                logger.warning("%s", problem)
        self._told = problems
