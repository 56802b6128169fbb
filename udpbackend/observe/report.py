"""The status document: what `/status` answers with and what `udp-backend status` reads back.

Owns the JSON model and nothing else. It must not know where the values come from (build.py) nor how they are shown
(commands/status.py), and it stays cheap to import: a status command starts with it. Within `schema` 1 fields are only
added. Times are RFC 3339, sizes bytes, durations seconds, rates per second; null means "not known (yet)".
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

PeerState = Literal["seen", "silent", "unanswered"]
"""Whether a good packet came from a peer lately, or none did although we keep sending to it."""
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator wants to know first."""

    state: Literal["ready", "degraded", "starting"]
    text: str
    reasons: list[str]


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """The overlay network and our share of it."""

    network: str
    subnet: str | None
    backend: str
    port: int | None
    source_check: str | None
    ipv6_network: str | None = None
    ipv6_subnet: str | None = None
    dataplane: str | None = None
    """`userspace` or `kernel`, where the backend leaves a choice."""


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """The two interfaces between which packets move: the underlay's and the overlay's."""

    name: str
    address: str
    public_ip: str
    mtu: int
    overlay_device: str | None
    overlay_address: str | None
    overlay_mtu: int | None
    overlay_ipv6_address: str | None = None
    overlay_ipv6_device: str | None = None
    """Where it is another one than `overlay_device`."""


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """How old our view of the leases is and where it comes from."""

    kind: str
    source: str
    revision: int | None
    synced_at: Moment | None
    age_s: float | None
    degraded: str | None


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another node, counted in inner packets and bytes since it first appeared."""

    node: str
    public_ip: str
    port: int | None
    subnets: list[str]
    tx_packets: int = 0
    tx_bytes: int = 0
    rx_packets: int = 0
    rx_bytes: int = 0
    path_mtu: int | None = None
    path_mtu_left_s: int = 0
    silent_s: float | None = None
    tx_dropped: int = 0
    """Packets for it that found no room on the way to it."""
    tx_dropped_ago_s: float | None = None
    """Since the last of them."""
    state: PeerState | None = None
    """Null where the kernel moves the packets, or before it is in the table."""
    unanswered_s: int = 0
    """How long packets have been sent to it while no good one came from it; 0 while none is sent."""


class Ignored(msgspec.Struct, frozen=True, kw_only=True):
    """A node of another backend than ours: it is in the registry, and nothing is sent to it."""

    node: str
    public_ip: str
    backend: str
    subnets: list[str]


class Counter(msgspec.Struct, frozen=True, kw_only=True):
    """One counter of the dataplane; `received`, `delivered` and `dropped` are the terms of the law."""

    name: str
    direction: Literal["tx", "rx"]
    kind: Literal["received", "delivered", "dropped", "note"]
    value: int
    meaning: str
    cure: str


class KernelDrops(msgspec.Struct, frozen=True, kw_only=True):
    """Packets the kernel dropped beside us, before we were given them or after it took them."""

    name: str
    direction: Literal["tx", "rx"]
    value: int
    meaning: str
    cure: str


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Good packets that this host lost of late, by one cause."""

    counter: str
    """The name of what counts them, in `counters` or in `kernel`."""
    packets: int
    of: int
    """How many there were, those that are lost among them; where a packet can be a super-packet, both count so."""
    over_s: float
    what: str
    cure: str


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The law in one direction: received = delivered + dropped + in_flight + unexplained."""

    received: int
    delivered: int
    dropped: int
    in_flight: int
    unexplained: int


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """Whether every packet is accounted for; a packet under way in a worker may show as unexplained for a moment."""

    tx: Terms
    rx: Terms


class LastError(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel last answered where one counter stands for several errors."""

    text: str
    counter: str
    age_s: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic over the last `over_s` seconds; 0 while there is nothing to compare with."""

    tx_packets_per_s: float = 0.0
    tx_bits_per_s: float = 0.0
    rx_packets_per_s: float = 0.0
    rx_bits_per_s: float = 0.0
    over_s: float = 0.0


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """The longest time the event loop was late in the last few seconds."""

    lag_s: float


class Movers(msgspec.Struct, frozen=True, kw_only=True):
    """Who moves the packets: so many threads that do nothing else, or with 0 the event loop."""

    threads: int
    nice: int
    """Of these threads, or of the event loop's. In a stream threads have it only while other programs keep the core."""
    crowded: bool = False
    """Whether another program computes on their core, as far as they have seen."""
    session_nice: int | None = None
    """Of the daemon's session, which counts where the kernel groups processes by it; null where others share it."""
    refused: str | None
    """Why it is not the value that was asked for."""
    filtered: int = 0
    """How many of the threads run under a seccomp filter of the system calls they need."""
    unfiltered: str | None = None
    """Why not all of them do; null without threads, too."""


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of packets when this process ends, and by whose routes they move now."""

    kept_by: Literal["service manager", "device", "kernel"] | None
    """After a kill: the manager keeps the open queues, so packets wait for the next start; flannel0 stays without a
    queue, so they are lost until then; or the kernel moves them and nothing changes."""
    inherited_age_s: float | None
    """Not null while packets move by the routes of the daemon before: how old those are."""


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What the process may do beyond what any other may."""

    capabilities: list[str]
    """Without `CAP_`; one that the daemon never needs as a number."""
    no_new_privs: bool
    """Whether no program that it starts can get more."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a running daemon says of itself."""

    schema: Literal[1]
    version: str
    node: str
    started_at: Moment
    uptime_s: float
    verdict: Verdict
    network: Network | None
    interface: Interface | None
    offloads: list[str]
    registry: Registry
    routes: int
    peers: list[Peer]
    counters: list[Counter]
    kernel: list[KernelDrops]
    law: Law
    rates: Rates
    last_error: str | None
    loop: Loop
    ignored: list[Ignored] = msgspec.field(default_factory=list)
    movers: Movers | None = None
    """Null where the kernel moves them, and before the start has come so far."""
    peers_total: int = 0
    """How many peers there are; `peers` has fewer of them if fewer were asked for."""
    peers_seen: int = 0
    """How many of all peers are in that state; 0 where the kernel moves the packets."""
    peers_unanswered: int = 0
    last_error_info: LastError | None = None
    """When `last_error` was, and what was counted for it."""
    restart: Restart = Restart(kept_by=None, inherited_age_s=None)
    rights: Rights | None = None
    losses: list[Loss] = msgspec.field(default_factory=list)
    """What was lost in the last few seconds; nothing where all is well."""
    refused: list[Loss] = msgspec.field(default_factory=list)
    """Likewise what the source check dropped: a peer's good packets, or a stranger's."""


def rank(peer: Peer) -> int:
    """What comes first where not all peers are shown or asked: those that do not answer, then those not heard of."""
    return 0 if peer.state == "unanswered" else 1 if peer.state == "silent" or peer.silent_s is None else 2


def age(seconds: float) -> str:
    """A duration as kubectl writes it, two units at most: `42s`, `3m12s`, `5h3m`, `12d7h`."""
    total = max(0, int(seconds))
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if days:
        return f"{days}d{hours % 24}h"
    if hours:
        return f"{hours}h{minutes % 60}m"
    return f"{minutes}m{total % 60}s" if minutes else f"{total}s"
