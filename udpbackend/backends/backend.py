"""What a backend is: how a packet gets to another node, as the daemon uses it, and the table of those there are.

Owns the protocol and what observers are shown of any backend. A backend knows no registry: it says what its peers are
to know of it, and is handed a lease and snapshots that hold leases of its own type alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib import import_module
from inspect import isawaitable
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

from udpbackend.dataplane.estate import State
from udpbackend.dataplane.inherit import Inheritance
from udpbackend.errors import ConfigError
from udpbackend.gojson import Fields
from udpbackend.host.leftovers import Which
from udpbackend.host.netlink import Netlink
from udpbackend.model import Attributes, Endpoint, Lease, NetworkConfig, Snapshot
from udpbackend.settings import Settings

if TYPE_CHECKING:  # a backend that leaves its packets to the kernel does not load the C extension
    from udpbackend.dataplane.native import CounterInfo, LastError, PeerCounters

BACKENDS = {"udp": "udp_choice", "vxlan": "vxlan", "host-gw": "hostgw"}
"""Backend.Type -> the module of this package with `check(config)` and `backend(context)`, which may be a coroutine."""

DATAPLANE = "Dataplane"

KeptBy = Literal["service manager", "device", "kernel"]
"""Who keeps a killed daemon's network: the manager its open queues (a stall), flannel0 itself without a queue (packets
are lost until the next start), or the kernel all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """All that a backend is made from."""

    config: NetworkConfig
    endpoint: Endpoint
    netlink: Netlink
    settings: Settings
    published: Callable[[float], None]
    """To be told the seconds that each publication of a route table took."""
    inherited: Inheritance = field(default_factory=Inheritance)
    """What this start has from the process before it; queues in it turn already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """The overlay device as it stands in the host."""

    device: str
    address: IPv4Address
    address6: IPv6Address | None = None
    """None where this node carries no IPv6."""
    device6: str | None = None
    """The device that carries `address6`, where it is another one."""
    mtu: int


@dataclass(frozen=True, slots=True)
class KernelDrop:
    """A place where the kernel drops packets beside a backend that moves them itself."""

    name: str
    direction: Literal["tx", "rx"]
    meaning: str
    cure: str


class PeerTable(Protocol):
    """The peers of a published table at one moment, in no order. Of 65,536 none is made that is not asked for."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int, /) -> PeerCounters:
        """One of them."""

    @property
    def addresses(self) -> Sequence[int]:
        """Their public IPs, integers in host order."""

    @property
    def silent(self) -> Sequence[int]:
        """The indexes of those that have not sent us a good packet lately."""

    @property
    def unanswered(self) -> Sequence[int]:
        """The indexes of those that we keep sending to while no good packet comes."""


class NoPeers:
    """The table of a backend that has none."""

    addresses: Sequence[int] = ()
    silent: Sequence[int] = ()
    unanswered: Sequence[int] = ()

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int, /) -> PeerCounters:
        raise IndexError(index)


NO_PEERS = NoPeers()


@dataclass(frozen=True, slots=True, kw_only=True)
class Movers:
    """Who moves the packets, where the backend does it itself."""

    threads: int
    """That do nothing else; 0: the event loop does."""
    nice: int
    """Their nice value; in a stream only while others keep the core."""
    crowded: bool = False
    """Whether another program computes on their core, as far as they have seen."""
    session_nice: int | None = None
    """That of the daemon's session, where it is the daemon's alone."""
    refused: str = ""
    """Why it is not the one that was asked for."""
    filtered: int = 0
    """How many of the threads run under a seccomp filter."""
    unfiltered: str = ""
    """Why not all of them do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """One moment of a backend, for observers. A backend that leaves its packets to the kernel has few of them."""

    overlay: Overlay | None = None
    routes: int = 0
    """To other nodes' subnets, as they are in force."""
    problems: tuple[str, ...] = ()
    """What is wrong though packets still flow, one clause each."""
    offloads: tuple[str, ...] = ()
    movers: Movers | None = None
    infos: Sequence[CounterInfo] = ()
    counters: Sequence[int] = ()
    peers: PeerTable = NO_PEERS
    seen: int = 0
    """How many of the peers have sent us a good packet lately, and are not unanswered."""
    slow: Sequence[PeerCounters] = ()
    """Those that take less than they are sent."""
    in_flight: int = 0
    last_error: LastError | None = None
    source_check: str | None = None
    """What a received packet has to show, where anything is checked."""
    dataplane: Literal["userspace", "kernel"] | None = None
    """Who moves the packets, where the backend leaves a choice."""
    kernel: Mapping[KernelDrop, int] = field(default_factory=dict)
    """Drops by the kernel, as far as they could be read."""
    kept_by: KeptBy = "kernel"


class Backend(Protocol):
    """`prepare`, `start`, then `apply` for each snapshot while `run` repairs; `stop` in any state."""

    @property
    def mtu(self) -> int:
        """That of pods, in bytes: FLANNEL_MTU."""

    @property
    def port(self) -> int | None:
        """The UDP port every node of the network listens on, if any."""

    async def prepare(self, held: Lease | None) -> Attributes:
        """Refuses what cannot work, and says what the peers are to know; changes nothing on the machine.

        `held` is the lease this host had before, or has for certain: what it says of us can stay as it is.
        """

    async def start(self, lease: Lease, snapshot: Snapshot) -> None:
        """Makes or takes over what the host needs for the lease, and lets packets flow."""

    async def apply(self, snapshot: Snapshot) -> None:
        """Follows the leases of a snapshot, our own among them."""

    async def run(self) -> None:
        """Repairs until cancelled: what others change on the host is put back or followed."""

    async def stop(self) -> None:
        """Ends; what outlives a restart stays."""

    async def undo(self) -> None:
        """After `stop`: takes back what a `start` that failed has made on the machine."""

    async def remove(self) -> None:
        """After `stop`: takes away all that this backend has in the host."""

    def others(self) -> Which:
        """What another backend may have left in the host for the same network: packets would go past this one."""

    def undisturbed(self) -> AbstractAsyncContextManager[None]:
        """For work whose Python is long enough to be felt by packets: meanwhile it is not."""

    async def facts(self) -> BackendFacts:
        """What there is to see now."""

    def infos(self) -> Sequence[CounterInfo]:
        """What `counters` counts; nothing where the kernel moves the packets."""

    def counters(self) -> Sequence[int]:
        """Totals since the start."""

    async def kernel_drops(self) -> Mapping[KernelDrop, int]:
        """What the kernel dropped beside a backend that moves packets itself, as far as it can be read."""


@runtime_checkable
class HandsOver(Protocol):
    """A backend that moves packets itself, and can let another process go on with it."""

    async def offer(self) -> tuple[Mapping[str, int], State]:
        """Fds of queues, which move packets still, and of the last table (dataplane.estate); what is known of peers.

        All fds are borrowed. Raises HostError where there is nothing to go on with.
        """

    async def release(self, next_fds: Sequence[int]) -> State:
        """Stops moving packets; whoever waits for a queue's eventfd moves them from then on.

        What was counted and learned until then. Raises HostError where it cannot.
        """

    async def resume(self) -> None:
        """Takes a `release` back."""


def check_config(config: NetworkConfig) -> None:
    """Raises ConfigError for a backend there is not, or an option that is wrong whatever the host."""
    kind = config.backend.type
    if kind not in BACKENDS:
        expected = " or ".join(f'"{name}"' for name in BACKENDS)
        raise ConfigError(f"unknown backend type: {kind} (Backend.Type: expected {expected})")
    if kind != "udp" and DATAPLANE in Fields(config.backend.options, "Backend"):
        raise ConfigError(
            f"Backend.{DATAPLANE}: the {kind} backend leaves no choice: expected it with the udp backend only"
        )
    _module(kind).check(config)


async def make_backend(context: Context) -> Backend:
    """The backend that a configuration names which `check_config` has nothing against."""
    kind = context.config.backend.type
    if kind != "udp" and context.settings.dataplane is not None:
        raise ConfigError(
            f"--dataplane={context.settings.dataplane}: the {kind} backend leaves no choice: expected it with the udp "
            "backend only"
        )
    made = _module(kind).backend(context)
    return cast("Backend", await made if isawaitable(made) else made)


def option_mtu(kind: str, mtu: int) -> int:
    """What Backend.MTU has to say for an overlay of `mtu` bytes: a backend may count its headers in."""
    return mtu + int(getattr(_module(kind), "OPTION_MTU_ADDS", 0))


def overhead(kind: str) -> int:
    """Bytes that a backend puts before each IPv4 packet."""
    found = getattr(_module(kind), "OVERHEAD_BYTES", 0)
    return int(found[4] if isinstance(found, dict) else found)


def is_bound(kind: str) -> bool:
    """Whether a backend's socket takes only what comes to the interface's own address; the kernel's take all."""
    return bool(getattr(_module(kind), "BINDS_ADDRESS", False))


def _module(kind: str) -> Any:
    return import_module(f"udpbackend.backends.{BACKENDS[kind]}")
