"""The C dataplane as Python sees it: the only wrapper around `udpbackend._native`.

Owns the handle, and the translation of negative errnos into DataplaneError. It must not know who the peers are or why:
it takes a packed route table and gives back counters. Fds passed in stay the caller's.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal, NamedTuple, Self, overload

from udpbackend._native import ffi, lib
from udpbackend.errors import DataplaneError
from udpbackend.model import Prefix, inet
from udpbackend.settings import Settings

ROUTE = struct.Struct("=16s4s2sBB")
"""struct udpb_route of udpb.h: net, peer address, peer port (both network order), version, prefix length."""

SOURCE_CHECKS = {
    "subnet": lib.UDPB_SOURCE_SUBNET,
    "peer": lib.UDPB_SOURCE_PEER,
    "off": lib.UDPB_SOURCE_OFF,
}
ROW_BYTES = ffi.sizeof("struct udpb_peer")
SEEN_NS = 120_000_000_000
"""A peer is seen for so long after a good packet from it: what repeats itself (health checks, scrapes, keepalives) does
so once a minute at least, and may be missed once."""
UNANSWERED_S = 10
"""From so long on it is told that packets are sent to a peer and none comes: no answer takes that long."""
SLOW_NS = 10_000_000_000
"""A peer is slow for so long after the last packet that was dropped for want of room."""
PeerState = Literal["seen", "silent", "unanswered"]
Field = Literal["silent_ns", "dropped_ago_ns", "address_be", "unanswered_s"]
FIELDS: dict[Field, Literal["q", "I", "H"]] = {
    "silent_ns": "q",
    "dropped_ago_ns": "q",
    "address_be": "I",
    "unanswered_s": "H",
}
"""Those that are read of all rows at once, with their type."""
DIRECTIONS = {lib.UDPB_TX: "tx", lib.UDPB_RX: "rx"}
KINDS = {
    lib.UDPB_RECEIVED: "received",
    lib.UDPB_DELIVERED: "delivered",
    lib.UDPB_DROPPED: "dropped",
    lib.UDPB_NOTE: "note",
}
OFFLOADS = {
    lib.UDPB_OFFLOAD_CSUM: "csum",
    lib.UDPB_OFFLOAD_TSO: "tso",
    lib.UDPB_OFFLOAD_USO: "uso",
    lib.UDPB_OFFLOAD_TCP_COALESCE: "tcp-coalesce",
    lib.UDPB_OFFLOAD_UDP_COALESCE: "udp-coalesce",
    lib.UDPB_OFFLOAD_UDP_SEGMENT: "udp-segment",
    lib.UDPB_OFFLOAD_UDP_GRO: "udp-gro",
}


@dataclass(frozen=True, slots=True)
class CounterInfo:
    """What a counter is called and means; the same for every process of this version."""

    name: str
    """For example `tx_drop_no_route`."""
    direction: str
    """`tx` (flannel0 to the network) or `rx`."""
    kind: str
    """`received`, `delivered`, `dropped` (the terms of the law) or `note`."""
    meaning: str
    cure: str
    """Empty where nothing is wrong."""


@dataclass(frozen=True, slots=True)
class LastError:
    """What the kernel last said to something that is counted together with other errors."""

    text: str
    counter: str
    """For example `tx_drop_send_error`."""
    age_s: int


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """One peer of the published table, counted in inner packets and bytes since it first appeared."""

    address: IPv4Address
    port: int
    tx_packets: int
    tx_bytes: int
    rx_packets: int
    rx_bytes: int
    path_mtu: int | None
    """Of the outer path in bytes, where a smaller one than the interface's was learned."""
    path_mtu_left_s: int
    silent_s: float | None
    """Since the last good packet from it; None for never."""
    tx_dropped: int
    """Packets for it that found no room on the way."""
    dropped_ago_s: float | None
    """Since the last of them; None for never."""
    state: PeerState
    unanswered_s: int
    """How long packets have been sent to it while no good one came; 0 while none is sent."""


class PeerRows(Sequence[PeerCounters]):
    """Copied rows of struct udpb_peer. There may be 65,536: each becomes counters only when it is asked for."""

    def __init__(self, rows: Any, count: int) -> None:
        self._rows = rows
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> PeerCounters: ...
    @overload
    def __getitem__(self, index: slice) -> list[PeerCounters]: ...
    def __getitem__(self, index: int | slice) -> PeerCounters | list[PeerCounters]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        return _peer(self._rows[range(self._count)[index]])

    def packed(self) -> bytes:
        """The rows as they are, ROW_BYTES each: for `restore_peers` and `restore_paths` of a Dataplane alone."""
        return bytes(ffi.buffer(self._rows)[: self._count * ROW_BYTES])

    @property
    def seen(self) -> int:
        """How many have sent us a good packet lately, and are not unanswered; 3 ms for 65,536."""
        both = zip(self._column("silent_ns"), self._column("unanswered_s"), strict=True)
        return sum(0 <= silent_ns < SEEN_NS and asked_s < UNANSWERED_S for silent_ns, asked_s in both)

    @property
    def silent(self) -> list[int]:
        """The indexes of those that have not sent one lately."""
        return [i for i, silent_ns in enumerate(self._column("silent_ns")) if not 0 <= silent_ns < SEEN_NS]

    @property
    def unanswered(self) -> list[int]:
        """The indexes of those that we keep sending to while no good packet comes."""
        return [i for i, asked_s in enumerate(self._column("unanswered_s")) if asked_s >= UNANSWERED_S]

    @property
    def addresses(self) -> Sequence[int]:
        """Their public IPs, integers in host order."""
        found = array("I", self._column("address_be"))
        if sys.byteorder == "little":
            found.byteswap()
        return found

    @property
    def slow(self) -> list[PeerCounters]:
        """Those that packets were dropped for in the last seconds, because they take less than they are sent."""
        return [self[i] for i, ago_ns in enumerate(self._column("dropped_ago_ns")) if 0 <= ago_ns < SLOW_NS]

    def _column(self, field: Field) -> Sequence[int]:
        """One field of all rows."""
        words = memoryview(ffi.buffer(self._rows)).cast("B").cast(FIELDS[field])
        first, step = (n // words.itemsize for n in (ffi.offsetof("struct udpb_peer", field), ROW_BYTES))
        return words[first::step][: self._count]


@cache
def counter_infos() -> tuple[CounterInfo, ...]:
    """Every counter of the dataplane in the order of `Dataplane.counters`."""
    found = []
    info = ffi.new("struct udpb_counter *")
    for i in range(lib.udpb_counters()):
        _check(lib.udpb_counter_info(i, info), "read the list of counters")
        texts = (ffi.string(text).decode() for text in (info.name, info.meaning, info.cure))
        name, meaning, cure = texts
        found.append(CounterInfo(name, DIRECTIONS[info.direction], KINDS[info.kind], meaning, cure))
    return tuple(found)


def pack_route(prefix: Prefix, peer: int = 0, port: int = 0) -> bytes:
    """One entry of a packed route table: `peer` is an IPv4 address as an integer; without one the prefix is local."""
    return ROUTE.pack(prefix.packed(), peer.to_bytes(4, "big"), port.to_bytes(2, "big"), prefix.version, prefix.bits)


class Options(NamedTuple):
    """What an operator chooses."""

    source_check: str = "subnet"
    copy_dscp: bool = False
    """Whether datagrams get their packet's DSCP; its ECN they always get."""
    offloads_off: Collection[str] = ()
    """Names of offloads that are not to be used, whatever the kernel grants."""
    guard: bool = False
    """Whether threads that only turn queues run under a seccomp filter, where the kernel has that."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those among all settings."""
        check = settings.source_check or "subnet"
        return cls(check, settings.copy_dscp, settings.offloads_off, settings.seccomp)


class Dataplane:
    """The handle. Close its queues and call `close` when done; `turn` is the only call made for every packet."""

    def __init__(
        self,
        *,
        tun_address: IPv4Address,
        tun_address6: IPv6Address | None = None,
        options: Options,
    ) -> None:
        """The two `tun_address` are flannel0's, the sources of our ICMP errors; without the second none is sent."""
        config = ffi.new("struct udpb_config *")
        config.tun_address_be = inet(tun_address)
        config.tun_address6 = tun_address6.packed if tun_address6 else bytes(16)
        config.source_check = SOURCE_CHECKS[options.source_check]
        config.copy_dscp = options.copy_dscp
        self.guarded = bool(options.guard)
        """Whether a seccomp filter was asked for."""
        config.guard = options.guard
        config.offloads_off = sum(bit for bit, name in OFFLOADS.items() if name in options.offloads_off)
        out = ffi.new("struct udpb **")
        _check(lib.udpb_new(config, out), "start the dataplane")
        self._handle = out[0]

    def close(self) -> None:
        """Frees the handle; every queue must be closed."""
        handle, self._handle = self._handle, ffi.NULL
        lib.udpb_free(handle)

    def publish(self, routes: bytes | bytearray) -> None:
        """Replaces the whole route table; `routes` is a concatenation of `pack_route` results."""
        count = len(routes) // ROUTE.size
        table = ffi.from_buffer("struct udpb_route[]", routes) if count else ffi.NULL
        _check(lib.udpb_publish(self._handle, table, count), f"publish {count} routes")

    def reclaim(self) -> int:
        """Frees retired tables; how many are still in use."""
        return int(lib.udpb_reclaim(self._handle))

    def open_queue(self, queue: int, tun_fd: int, udp_fd: int) -> None:
        """Opens a queue on two non-blocking fds that outlive it."""
        _check(lib.udpb_queue_open(self._handle, queue, tun_fd, udp_fd), "open a queue on flannel0")

    def add_socket(self, queue: int, udp_fd: int) -> None:
        """Lets an open queue send from one more socket, which outlives it."""
        _check(lib.udpb_queue_add_socket(self._handle, queue, udp_fd), "send from another port")

    def flush_queue(self, queue: int) -> None:
        """Sends what waits in the queue for a full socket, for a stall's time at most; never while it turns."""
        _check(lib.udpb_queue_flush(self._handle, queue), "flush a queue")

    def close_queue(self, queue: int) -> None:
        """Closes a queue; never while it turns."""
        lib.udpb_queue_close(self._handle, queue)

    def queue_fd(self, queue: int) -> int:
        """The epoll fd that is readable when a turn is due."""
        return int(lib.udpb_queue_fd(self._handle, queue))

    def offloads(self, queue: int) -> tuple[str, ...]:
        """Names of the offloads that the queue uses now."""
        granted = lib.udpb_queue_offloads(self._handle, queue)
        return tuple(name for bit, name in OFFLOADS.items() if granted & bit)

    def crowded(self, queue: int) -> bool:
        """Whether a program that computes shares the core of whoever turns the queue, as far as is known."""
        return bool(lib.udpb_queue_crowded(self._handle, queue))

    def turn(self, queue: int, budget_ns: int, linger_ns: int, loop_fd: int) -> int:
        """One turn of the pump with the GIL released: UDPB_TURN_*, or a negative errno."""
        return int(lib.udpb_turn(self._handle, queue, budget_ns, linger_ns, loop_fd))

    def run(self, queue: int, stop_fd: int) -> int:
        """Turns a queue, with the GIL released, until `stop_fd` is readable: 0 then, else as `turn`."""
        return int(lib.udpb_run(self._handle, queue, stop_fd))

    def run_when(self, queue: int, ready_fd: int, go_fd: int, stop_fd: int) -> int:
        """The same once `go_fd` is readable; `ready_fd` is written when nothing else is waited for any more."""
        return int(lib.udpb_run_when(self._handle, queue, ready_fd, go_fd, stop_fd))

    def pass_on(self, queue: int, next_fd: int) -> None:
        """When a `run` is told to stop, the queue is flushed and `next_fd` written, for whoever turns it next."""
        _check(lib.udpb_queue_pass_on(self._handle, queue, next_fd), "pass a queue on")

    def guard(self, queue: int) -> int:
        """1 while a queue is turned under a seccomp filter, a negative errno where none is to be had, else 0."""
        return int(lib.udpb_guard(self._handle, queue))

    def counters(self) -> list[int]:
        """Every counter's value, in the order of `counter_infos`."""
        count = lib.udpb_counters()
        values = ffi.new("uint64_t[]", count)
        _check(lib.udpb_read_counters(self._handle, values, count), "read the counters")
        return list(values)

    def add_counters(self, values: Sequence[int]) -> None:
        """Adds what another process has counted, in the order of `counter_infos`."""
        _check(lib.udpb_add_counters(self._handle, values, len(values)), "take over the counters")

    def in_flight(self) -> int:
        """Packets taken from flannel0 that the socket has not accepted yet."""
        return int(lib.udpb_in_flight(self._handle))

    def last_error(self) -> LastError | None:
        """The last errno behind a counter that stands for several."""
        last = ffi.new("struct udpb_error *")
        lib.udpb_last_error(self._handle, last)
        if not last.error:
            return None
        return LastError(os.strerror(last.error), counter_infos()[last.counter].name, last.age_s)

    def peers(self) -> PeerRows:
        """Every peer of the published table at this moment."""
        count = lib.udpb_read_peers(self._handle, ffi.NULL, 0)
        rows = ffi.new("struct udpb_peer[]", max(count, 1))
        return PeerRows(rows, min(count, lib.udpb_read_peers(self._handle, rows, count)))

    def restore_peers(self, rows: bytes) -> int:
        """Adds the counters of `PeerRows.packed` of another process of this version; how many are peers still."""
        table = ffi.from_buffer("struct udpb_peer[]", rows)
        return int(lib.udpb_restore_peers(self._handle, table, len(rows) // ROW_BYTES))

    def restore_paths(self, rows: bytes) -> None:
        """Takes over the path MTUs among such rows."""
        lib.udpb_restore_paths(self._handle, ffi.from_buffer("struct udpb_peer[]", rows), len(rows) // ROW_BYTES)


def calls_refused() -> tuple[int, int]:
    """How many system calls those filters have refused in this process, and the number of the last one."""
    last = ffi.new("int *")
    return int(lib.udpb_calls_refused(last)), int(last[0])


def steer(tun_fd: int) -> str | None:
    """Fixes which queue of a multi-queue TUN a flow goes to; the reason where the kernel does not let us."""
    error = lib.udpb_steer(tun_fd)
    return os.strerror(-error) if error else None


def ended(result: int) -> str | None:
    """Why a queue can be turned no more, from what a turn or a run returned; None while it can."""
    if result < 0:
        return os.strerror(-result)
    return "flannel0 was deleted" if result == lib.UDPB_TURN_TUN_GONE else None


def _peer(row: Any) -> PeerCounters:
    return PeerCounters(
        address=IPv4Address(row.address_be.to_bytes(4, sys.byteorder)),
        port=int.from_bytes(row.port_be.to_bytes(2, sys.byteorder), "big"),
        tx_packets=row.tx_packets,
        tx_bytes=row.tx_bytes,
        rx_packets=row.rx_packets,
        rx_bytes=row.rx_bytes,
        path_mtu=row.path_mtu_bytes or None,
        path_mtu_left_s=row.path_mtu_left_s,
        silent_s=None if row.silent_ns < 0 else row.silent_ns / 1e9,
        tx_dropped=row.tx_dropped,
        dropped_ago_s=None if row.dropped_ago_ns < 0 else row.dropped_ago_ns / 1e9,
        state=_state(row),
        unanswered_s=row.unanswered_s,
    )


def _state(row: Any) -> PeerState:
    if row.unanswered_s >= UNANSWERED_S:
        return "unanswered"
    return "seen" if 0 <= row.silent_ns < SEEN_NS else "silent"


def _check(result: int, what: str) -> None:
    if result < 0:
        raise DataplaneError(f"cannot {what}: {os.strerror(-result)}")
