"""ICMP echo requests: who answers, how fast, and up to which size.

Owns one socket for all of them (RFC 792, RFC 1122 3.2.2.6). It is our own and not the ping program's, because a pod
need not have that, because a sweep over sizes and peers at once would be hundreds of processes, and because one knows
then why a request could not even be sent.

A datagram socket of ICMP needs no capability where net.ipv4.ping_group_range lets our group have it; a raw socket needs
NET_RAW. The first is tried first. DF is set by IP_PMTUDISC_PROBE, which does not shorten what the kernel has learned.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import TracebackType
from typing import Self

from udpbackend.errors import HostError

ECHO_REPLY, ECHO_REQUEST = 0, 8
HEADER = struct.Struct("!BBHHH")
IP_HEADER_BYTES, ICMP_HEADER_BYTES = 20, 8
SMALL_BYTES = 84
"""Of a whole IP packet, as ping sends it."""

IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_PROBE = 10, 0, 3
SOL_RAW, ICMP_FILTER = 255, 1
BUFFER_BYTES = 1 << 20

WAIT_S = 1.0
"""For one answer."""
PACE_S = 0.05
"""Between requests that are counted: they are to measure the path and not to fill it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it."""

    rtt_s: float | None = None
    """None: nothing came back."""
    error: str = ""
    """Why the kernel did not send it, the last time."""

    @property
    def came(self) -> bool:
        """Whether there was an answer."""
        return self.rtt_s is not None

    def __str__(self) -> str:
        return self.error or ("no answer" if self.rtt_s is None else f"answers in {self.rtt_s * 1000:.1f} ms")


class Echo:
    """A socket for echo requests: `async with Echo() as echo`, in any event loop. HostError where we may have none."""

    def __init__(self, *, dont_fragment: bool = False) -> None:
        """`dont_fragment`: every request has DF set."""
        self._mode = IP_PMTUDISC_PROBE if dont_fragment else IP_PMTUDISC_DONT
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._serial = itertools.count(1)
        self._waiting: dict[int, Callable[[], None]] = {}

    async def __aenter__(self) -> Self:
        self._socket, self._raw = _open()
        self._socket.settimeout(0)
        self._socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, self._mode)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        asyncio.get_running_loop().add_reader(self._socket, self._readable)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    async def ask(
        self, address: IPv4Address, *, size: int = SMALL_BYTES, tries: int = 3, wait_s: float = WAIT_S
    ) -> Answer:
        """Asks until there is an answer. `size` is that of the whole IP packet, in bytes; `wait_s` is for each try."""
        answer = Answer()
        for _ in range(tries):
            answer = await self._once(str(address), size - IP_HEADER_BYTES - ICMP_HEADER_BYTES, wait_s)
            if answer.came:
                break
        return answer

    async def several(
        self,
        address: IPv4Address,
        number: int,
        *,
        size: int = SMALL_BYTES,
        pace_s: float = PACE_S,
        wait_s: float = WAIT_S,
    ) -> list[Answer]:
        """Asks so many times, one request every `pace_s`, whether answers come or not: what counts losses."""

        async def after(turn: int) -> Answer:
            await asyncio.sleep(turn * pace_s)
            return await self.ask(address, size=size, tries=1, wait_s=wait_s)

        return list(await asyncio.gather(*map(after, range(number))))

    async def _once(self, address: str, payload_bytes: int, wait_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        answered, serial = asyncio.Event(), next(self._serial) & 0xFFFF
        self._waiting[serial] = answered.set
        sent, error = loop.time(), ""
        try:
            self._socket.sendto(request(self._identifier, serial, bytes(payload_bytes)), (address, 0))
        except OSError as failure:
            error = failure.strerror or str(failure)
        try:
            async with asyncio.timeout(wait_s):
                await answered.wait()
            return Answer(loop.time() - sent)
        except TimeoutError:
            return Answer(error=error)
        finally:
            del self._waiting[serial]

    def _readable(self) -> None:
        with suppress(OSError):  # nothing more to read, or an ICMP error, which is no answer
            while True:
                serial = reply(self._socket.recv(65535), self._identifier if self._raw else None)
                if serial in self._waiting:
                    self._waiting[serial]()


def request(identifier: int, serial: int, payload: bytes) -> bytes:
    """An echo request. The kernel puts an identifier of its own into that of a datagram socket."""
    message = HEADER.pack(ECHO_REQUEST, 0, 0, identifier, serial) + payload
    return HEADER.pack(ECHO_REQUEST, 0, checksum(message), identifier, serial) + payload


def reply(message: bytes, identifier: int | None) -> int | None:
    """The serial number of an echo reply; None for anything else.

    `identifier`: what a raw socket's must bear, behind its IP header; None for a datagram socket, which is given none
    but its own, without that header.
    """
    start = 0 if identifier is None else 4 * (message[0] & 0xF) if message else 0
    if len(message) < start + HEADER.size:
        return None
    kind, _code, _sum, found, serial = HEADER.unpack_from(message, start)
    return serial if kind == ECHO_REPLY and identifier in (None, found) else None


def checksum(message: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(message) // 2}H", message[: len(message) & ~1]))
    total += message[-1] << 8 if len(message) % 2 else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _open() -> tuple[socket.socket, bool]:
    """The socket, and whether it is raw."""
    with suppress(PermissionError):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP), False
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError:
        raise HostError(
            "no echo can be sent: it needs the capability NET_RAW, or a net.ipv4.ping_group_range with our group"
        ) from None
    raw.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", ~(1 << ECHO_REPLY) & 0xFFFFFFFF))
    return raw, True
