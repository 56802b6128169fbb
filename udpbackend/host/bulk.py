"""Many rtnetlink requests in one go: thousands of entries in fractions of a second.

Owns the socket and the exchange of messages over it. Must not know what a message means (`entries`). It blocks, so it
is used inside `Netlink.call` only: the kernel answers while it takes the request, nothing is ever waited for.

Requests go out in chunks, several messages to a system call. Each is answered by exactly one message, an
acknowledgement or what was asked for; a chunk is small enough that all its answers find room in the socket's buffer.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from udpbackend.host.entries import Request
from udpbackend.host.rtnetlink import DUMP_INTERRUPTED, DUMP_TRIES

SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12
"""linux/netlink.h: errors without a copy of the request; with words; and dumps that the kernel filters."""

HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, kind, flags, sequence number, port."""
REQUEST = 0x1
ERROR, DONE = 2, 3
WORDS = 0x200
"""NLM_F_ACK_TLVS: the error has words with it."""
ERROR_TEXT = 1
"""NLMSGERR_ATTR_MSG."""

CHUNK = 32
"""An answer to a route lookup takes 4.5 KiB of a buffer of 208."""
RECEIVE_BYTES = 1 << 16
TIMEOUT_S = 5.0
"""Never reached, unless an answer is lost; better an error then than a thread that is stuck."""

Answer = bytes | OSError
"""What was asked for, empty for an acknowledgement; or the kernel's refusal."""


class Bulk:
    """A socket to the kernel's routing tables: `with Bulk() as bulk`. Errors of the socket itself are OSError.

    Another netlink protocol speaks of other things in the same way.
    """

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._protocol = protocol

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self._protocol)
        try:
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
            self._socket.settimeout(TIMEOUT_S)
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def dump(self, request: Request) -> list[bytes]:
        """All answers; asked again when the kernel says its tables changed meanwhile."""
        found: list[bytes] = []
        for _ in range(DUMP_TRIES):
            found, interrupted = self._dump(request)
            if not interrupted:
                break
        return found

    def exchange(self, requests: Sequence[Request]) -> list[Answer]:
        """Makes the requests in their order; each one's answer, in the same order."""
        answers: list[Answer] = []
        for start in range(0, len(requests), CHUNK):
            answers += self._exchange(requests[start : start + CHUNK])
        return answers

    def _exchange(self, requests: Sequence[Request]) -> list[Answer]:
        first = self._sequence + 1
        self._socket.send(b"".join([self._message(request) for request in requests]))
        answers: dict[int, Answer] = {}
        while len(answers) < len(requests):
            for kind, flags, sequence, body in self._receive():
                if sequence >= first:
                    answers[sequence - first] = _verdict(body, flags) if kind == ERROR else body
        return [answers[place] for place in range(len(requests))]

    def _dump(self, request: Request) -> tuple[list[bytes], bool]:
        self._socket.send(self._message(request))
        found: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                interrupted |= bool(flags & DUMP_INTERRUPTED)
                if kind not in (DONE, ERROR):
                    found.append(body)
                    continue
                refused = _verdict(body, flags if kind == ERROR else 0)
                if isinstance(refused, OSError) and refused.errno != errno.ENOENT:
                    raise refused
                return found, interrupted  # ENOENT: the kernel makes the table with its first route

    def _message(self, request: Request) -> bytes:
        self._sequence += 1
        kind, flags, body = request
        return HEADER.pack(HEADER.size + len(body), kind, flags | REQUEST, self._sequence, 0) + body

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, flags, sequence number and body of every message of one read."""
        data = self._socket.recv(RECEIVE_BYTES)
        offset = 0
        while offset + HEADER.size <= len(data):
            length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
            yield kind, flags, sequence, data[offset + HEADER.size : offset + length]
            offset += (length + 3) & ~3


def _verdict(body: bytes, flags: int) -> Answer:
    """What an NLMSG_ERROR or an NLMSG_DONE says: empty, or the refusal with the kernel's words."""
    (code,) = struct.unpack_from("=i", body)
    if code >= 0:
        return b""
    reason, words = os.strerror(-code), _words(body[4 + HEADER.size :]) if flags & WORDS else ""
    return OSError(-code, f"{reason} ({words})" if words else reason)


def _words(attributes: bytes) -> str:
    offset = 0
    while offset + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, offset)
        if length < 4:
            break
        if kind == ERROR_TEXT:
            return attributes[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace").rstrip(".")
        offset += (length + 3) & ~3
    return ""
