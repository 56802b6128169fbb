"""The rules of one run: masquerading, forwarding, the blackhole for unused addresses; put there and kept there.

Owns when they are looked at and what it means that they cannot be written. Must not know the rules themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from udpbackend.errors import HostError
from udpbackend.host import firewall
from udpbackend.host.blackhole import Blackhole
from udpbackend.host.firewall import Firewall
from udpbackend.host.firewall_rules import FirewallPlan
from udpbackend.host.netlink import Netlink
from udpbackend.model import Lease, NetworkConfig, Prefix
from udpbackend.settings import Settings

logger = logging.getLogger(__name__)


class HostRules:
    """`start`, then `run` for the daemon's life; the rules stay when it stops."""

    def __init__(
        self, netlink: Netlink, settings: Settings, config: NetworkConfig, lease: Lease, *, previous: Iterable[Prefix]
    ) -> None:
        """`previous`: the subnets this host had before."""
        self._plan = FirewallPlan(
            network=config.network,
            subnet=lease.subnet,
            network6=config.ipv6.network if config.ipv6 and lease.ipv6_subnet else None,
            subnet6=lease.ipv6_subnet if config.ipv6 else None,
            masquerade=settings.ip_masq,
            fully_random=not settings.ip_masq_fully_random_disable,
            forward=settings.iptables_forward_rules,
        )
        self._nftables = config.nftables
        self._firewall = Firewall(self._plan, nftables=config.nftables)
        wanted = lease.subnets if settings.ip_blackhole_route else ()
        self._blackhole = Blackhole(netlink, wanted, (*lease.subnets, *previous))
        self._changes = netlink.changes()
        self._resync_s = settings.iptables_resync
        self._told: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with them now, one clause each; that a host without iptables has no forward rules is not."""
        return self._told if self._plan.masquerade else ()

    async def start(self) -> None:
        """Puts the rules there. Raises HostError where pods would be lost without: masquerading was asked for."""
        problem = None if self._nftables else firewall.bridge_problem(ipv6=self._plan.subnet6 is not None)
        if problem is not None and self._plan.masquerade:
            logger.warning("%s", problem)
        try:
            await self._firewall.apply()
        except HostError as error:
            if self._plan.masquerade:
                raise
            self._note((f"rules: {error}",))
        await self._blackhole.ensure()

    async def run(self) -> None:
        """Puts back what has gone missing, until cancelled."""
        self._changes.set()
        while True:
            await asyncio.sleep(self._resync_s)
            problems = []
            parts: list[Firewall | Blackhole] = [self._firewall]
            if self._changes.is_set():  # a route does not vanish without a word of the kernel's
                parts.append(self._blackhole)
                self._changes.clear()
            for part in parts:
                try:
                    for what in await part.ensure():
                        logger.info("repaired the rules: %s", what)
                except HostError as error:
                    problems.append(f"rules: {error}")
                    self._changes.set()
            self._note(tuple(problems))

    async def undo(self) -> None:
        """Takes back what a start that failed has made."""
        await self._firewall.undo()
        await self._blackhole.undo()

    async def remove(self) -> None:
        """Takes all of them away."""
        await firewall.remove()
        await self._blackhole.remove()

    def _note(self, problems: tuple[str, ...]) -> None:
        for problem in problems:
            if problem not in self._told:
                logger.warning("%s", problem)
        self._told = problems
