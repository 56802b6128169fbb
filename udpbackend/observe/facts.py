"""What the daemon tells the observers: plain values, and the protocol by which they are asked for.

Owns the list of facts a report is built from. It must not know where they come from: the daemon collects them, so
nothing here touches the host, a registry or the C extension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from udpbackend.backends.backend import NO_PEERS, KeptBy, KernelDrop, Movers, Overlay, PeerTable
from udpbackend.model import Endpoint, NetworkConfig, Prefix
from udpbackend.observe.nodes import Nodes
from udpbackend.observe.report import Loss, Rates

if TYPE_CHECKING:  # the C extension is not needed to describe its counters
    from udpbackend.dataplane.native import CounterInfo, LastError, PeerCounters
    from udpbackend.dataplane.rights import Rights


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryView:
    """The registry as the subnet manager sees it."""

    kind: str
    """`static`, `etcd` or `kube`."""
    source: str
    """Where it is: a file, endpoints, the API server's URL; never a secret."""
    revision: int | None = None
    synced_at: datetime | None = None
    """When the view was last known to be current, with a time zone."""
    age_s: float | None = None
    """The same on the monotonic clock; None for a registry that does not age, or before the first view."""
    degraded: str | None = None
    """Why the view cannot be refreshed; None while it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One moment of the daemon. What does not exist yet keeps its default."""

    version: str
    node: str
    started_at: datetime
    uptime_s: float
    waiting_for: str | None = None
    """What a start still waits for ("a lease"); None once packets flow and subnet.env is written."""
    inherited_age_s: float | None = None
    """How old the routes of the daemon before are, while packets move by them and ours are not known yet."""
    kept_by: KeptBy | None = None
    """What a next start goes on with if this daemon is killed now; None before it is known."""
    problems: tuple[str, ...] = ()
    """What is wrong though packets still flow, one clause each; a degraded registry need not be repeated here."""

    network: NetworkConfig | None = None
    subnet: Prefix | None = None
    """Our own lease's."""
    ipv6_subnet: Prefix | None = None
    """Likewise; None where this node carries no IPv6."""
    port: int | None = None
    source_check: str | None = None
    dataplane: str | None = None
    """Who moves the packets, where the backend leaves a choice."""
    endpoint: Endpoint | None = None
    overlay: Overlay | None = None
    offloads: tuple[str, ...] = ()
    movers: Movers | None = None
    """None for a backend that leaves its packets to the kernel."""
    rights: Rights | None = None
    """What this process may do."""

    registry: RegistryView
    nodes: Nodes = field(default_factory=Nodes)
    """Of the last snapshot."""
    routes: int = 0
    """In the published table."""

    infos: Sequence[CounterInfo] = ()
    """Empty, like the next four, for a backend that leaves its packets to the kernel."""
    counters: Sequence[int] = ()
    peers: PeerTable = NO_PEERS
    seen: int = 0
    """How many of the peers have sent us a good packet lately, and are not unanswered."""
    slow: Sequence[PeerCounters] = ()
    """Those that take less than they are sent."""
    in_flight: int = 0
    last_error: LastError | None = None
    kernel: Mapping[KernelDrop, int] = field(default_factory=dict)
    """Drops by the kernel, as far as they could be read."""
    losses: Sequence[Loss] = ()
    """What was lost of late that should have arrived."""
    refused: Sequence[Loss] = ()
    """What the source check dropped of late."""

    rates: Rates = field(default_factory=Rates)
    loop_lag_s: float = 0.0


class Source(Protocol):
    """What the daemon implements; all are called on its loop, `facts` for every status request and scrape."""

    def waiting_for(self) -> str | None:
        """What a start still waits for, or None when ready; must not wait for anything."""

    def view_age_s(self) -> float | None:
        """How old the view of the registry is; None before the first. Must not wait for anything."""

    def undisturbed(self) -> AbstractAsyncContextManager[None]:
        """For work whose Python is long enough to be felt by packets: meanwhile it is not."""

    async def facts(self) -> Facts:
        """Collects one moment. May ask the host; given up after http.DEADLINE_S."""
