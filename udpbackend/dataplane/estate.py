"""What a daemon leaves to the next one beside its fds: the last route table, and what the queues were opened with.

Owns the packed form, and the pair of memfds that holds it. Must not know who reads it, nor any registry: a daemon that
starts can turn its queues by this alone.

Theory of operation: a state is written to the two memfds in turn, so that a writer that is killed in the midst of it
leaves the one before whole. A checksum tells a whole one, a generation the newer. What cannot be read counts as absent:
the next daemon then starts as if nothing had been left.
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress

import msgspec

FORMAT = 2
"""Of the state, of the words of a handover, and of how fds are set up, for a successor opens what is turned still.

A daemon hands nothing over to one of another format."""

PREFACE = struct.Struct("=8sIIIII")
"""A mark, then the bytes of header, routes, peers and of one row of peers, and the CRC-32 of all that follows."""
MARK = b"udpb-st1"
STATE_BYTES_MAX = 1 << 28
"""Far more than UDPB_PEERS_MAX routes and peers need."""
STATES = ("state-a", "state-b")
"""The names of the two memfds."""

MFD_NOEXEC_SEAL = 0x8  # linux/memfd.h; Linux 6.3, which may insist on it


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the queues were opened with beside the settings: only who would open them so can go on with them."""

    device: str
    tun_address: str
    tun_address6: str | None
    local_address: str
    port: int
    fds: tuple[str, ...]
    """Names of all fds: `tun-0` and `udp-0` for queue 0, `send-0` for the first socket that all queues send from."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """All of a state but the packed tables."""

    format: int = FORMAT
    version: str
    """Of the program that wrote it."""
    settings: dict[str, str]
    """As Settings.identity tells them."""
    parts: Parts
    generation: int = 0
    published_at: float = 0.0
    """When the routes were published, in seconds since the epoch."""
    counters: dict[str, int] = {}
    """Complete only in a handover: a crash has no time to write them."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """One moment of a dataplane."""

    header: Header
    routes: bytes
    """A concatenation of native.pack_route results."""
    peers: bytes = b""
    """PeerRows.packed, to be read by a program with the same `row_bytes`."""
    row_bytes: int = 0


def pack(state: State) -> bytes:
    """The state as it stands in a memfd."""
    header = msgspec.json.encode(state.header)
    body = b"".join((header, state.routes, state.peers))
    sizes = (len(header), len(state.routes), len(state.peers), state.row_bytes)
    return PREFACE.pack(MARK, *sizes, zlib.crc32(body)) + body


def unpack(data: bytes) -> State | None:
    """Reads a state; None where it is not whole, or of another format."""
    if len(data) < PREFACE.size:
        return None
    mark, header_bytes, routes_bytes, peers_bytes, row_bytes, crc = PREFACE.unpack_from(data)
    body = data[PREFACE.size :]
    if mark != MARK or header_bytes + routes_bytes + peers_bytes != len(body) or zlib.crc32(body) != crc:
        return None
    try:
        header = msgspec.json.decode(body[:header_bytes], type=Header)
    except msgspec.DecodeError:
        return None
    if header.format != FORMAT:
        return None
    peers = body[header_bytes + routes_bytes :]
    return State(
        header=header, routes=body[header_bytes : header_bytes + routes_bytes], peers=peers, row_bytes=row_bytes
    )


def read(fd: int) -> State | None:
    """The state in a memfd, borrowed; None where there is none."""
    with suppress(OSError):
        size = os.fstat(fd).st_size
        return unpack(os.pread(fd, size, 0)) if size <= STATE_BYTES_MAX else None
    return None


def newest(fds: dict[str, int]) -> State | None:
    """Of the memfds among some named fds, the state written last."""
    found = [state for name in STATES if name in fds and (state := read(fds[name])) is not None]
    return max(found, key=lambda state: state.header.generation, default=None)


def write(fd: int, state: State) -> None:
    """Replaces what a memfd holds."""
    data = pack(state)
    os.ftruncate(fd, 0)
    sent = 0
    while sent < len(data):  # Linux writes 2 GB at most in one go, and a signal may cut it shorter
        sent += os.pwrite(fd, memoryview(data)[sent:], sent)


def memfd() -> int:
    """A new memfd, owned by the caller."""
    with suppress(OSError):
        return os.memfd_create("udpb-state", os.MFD_CLOEXEC | MFD_NOEXEC_SEAL)
    return os.memfd_create("udpb-state", os.MFD_CLOEXEC)


class Record:
    """The pair of memfds: owns both."""

    def __init__(self, fds: dict[str, int] | None = None) -> None:
        """`fds`: the pair of the daemon before, transferred; what is missing is made."""
        left = fds or {}
        before = newest(left)
        self._generation = before.header.generation if before else 0
        self.fds = {name: left[name] if name in left else memfd() for name in STATES}

    def catch_up(self) -> None:
        """After another process has written here: what we write from now on is the newer."""
        last = newest(self.fds)
        self._generation = max(self._generation, last.header.generation if last else 0)

    def write(self, header: Header, routes: bytes | bytearray) -> None:
        """Notes a state; the one before stays readable until this one is whole."""
        self._generation += 1
        noted = msgspec.structs.replace(header, generation=self._generation)
        write(self.fds[STATES[self._generation % 2]], State(header=noted, routes=bytes(routes)))

    def close(self) -> None:
        """Closes both; whoever else holds them can still read them."""
        while self.fds:
            os.close(self.fds.popitem()[1])
