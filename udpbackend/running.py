"""One run of the daemon as observers see it: which parts it has by now and what they say.

Owns nothing of the parts, which the daemon puts in as they come to be, and starts nothing. Must not know how any part
does its work.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime

from udpbackend import __version__
from udpbackend.backends.backend import Backend, BackendFacts
from udpbackend.dataplane.inherit import Inheritance
from udpbackend.dataplane.rights import held
from udpbackend.findings.watch import HostWatch
from udpbackend.host.rules import HostRules
from udpbackend.model import Endpoint, Lease, NetworkConfig, Snapshot
from udpbackend.observe.facts import Facts, RegistryView
from udpbackend.observe.losses import REFUSALS, Losses
from udpbackend.observe.nodes import Nodes
from udpbackend.observe.report import Rates
from udpbackend.observe.sampler import Sampler
from udpbackend.settings import Settings
from udpbackend.subnets.manager import SubnetManager


@dataclass(kw_only=True)
class Running:
    """What a run has by now; implements observe.facts.Source."""

    settings: Settings
    manager: SubnetManager
    inherited: Inheritance = field(default_factory=Inheritance)
    waits_for: str | None = "the network's configuration"
    """None once packets flow and subnet.env is written."""
    config: NetworkConfig | None = None
    endpoint: Endpoint | None = None
    lease: Lease | None = None
    snapshot: Snapshot = field(default_factory=lambda: Snapshot((), 0))
    """All leases, also those of other backends."""
    backend: Backend | None = None
    sampler: Sampler | None = None
    losses: Losses | None = None
    rules: HostRules | None = None
    watch: HostWatch | None = None
    _nodes: Nodes = field(default_factory=Nodes)
    started: float = field(default_factory=time.monotonic)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def mine(self, snapshot: Snapshot) -> Snapshot:
        """Of a snapshot, what our backend is to follow: nodes of another backend are not reached by ours."""
        kind = self.config.backend.type if self.config else ""
        return Snapshot(tuple(it for it in snapshot.leases if it.backend_type == kind), snapshot.revision)

    def waiting_for(self) -> str | None:
        """What a start still waits for."""
        return self.waits_for

    def view_age_s(self) -> float | None:
        """How old the view of the registry is."""
        last_sync = self.manager.state.last_sync
        return max(0.0, time.time() - last_sync) if last_sync else None

    async def facts(self) -> Facts:
        """One moment of the daemon."""
        backend, lease = self.backend, self.lease
        seen = await backend.facts() if backend else BackendFacts()
        return Facts(
            version=__version__,
            node=(lease and lease.node) or self.settings.node_name or os.uname().nodename,
            started_at=self.started_at,
            uptime_s=time.monotonic() - self.started,
            waiting_for=self.waits_for,
            inherited_age_s=self.inherited.age_s,
            kept_by=seen.kept_by if backend else None,
            problems=(
                *seen.problems,
                *(self.rules.problems if self.rules else ()),
                *(self.watch.problems if self.watch else ()),
            ),
            network=self.config,
            subnet=lease.subnet if lease else None,
            ipv6_subnet=lease.ipv6_subnet if lease else None,
            port=backend.port if backend else None,
            source_check=seen.source_check,
            dataplane=seen.dataplane,
            endpoint=self.endpoint,
            overlay=seen.overlay,
            offloads=seen.offloads,
            movers=seen.movers,
            rights=held(),
            registry=self._registry(),
            nodes=self._sorted_out(),
            routes=seen.routes,
            infos=seen.infos,
            counters=seen.counters,
            peers=seen.peers,
            seen=seen.seen,
            slow=seen.slow,
            in_flight=seen.in_flight,
            last_error=seen.last_error,
            kernel=seen.kernel,
            losses=self.losses.since(seen.counters, seen.kernel) if self.losses else (),
            refused=self.losses.since(seen.counters, seen.kernel, REFUSALS) if self.losses else (),
            rates=self.sampler.rates if self.sampler else Rates(),
            loop_lag_s=self.sampler.lag_s if self.sampler else 0.0,
        )

    def undisturbed(self) -> AbstractAsyncContextManager[None]:
        """For work whose Python is long enough to be felt by packets."""
        return self.backend.undisturbed() if self.backend else nullcontext()

    def _sorted_out(self) -> Nodes:
        """The same object as long as nothing has changed: it keeps what it has counted."""
        leases, known = self.snapshot.leases, self._nodes
        kind = self.config.backend.type if self.config else None
        own = self.lease.subnet if self.lease else None
        if leases is not known.leases or (kind, own) != (known.kind, known.own):
            self._nodes = Nodes(leases, kind, own)
        return self._nodes

    def _registry(self) -> RegistryView:
        state = self.manager.state
        return RegistryView(
            kind=state.kind,
            source=state.source,
            revision=state.revision,
            synced_at=datetime.fromtimestamp(state.last_sync, UTC) if state.last_sync else None,
            age_s=self.view_age_s(),
            degraded=state.degraded,
        )
