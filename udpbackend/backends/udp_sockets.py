"""The UDP sockets of all queues: opened or taken over, named for the next process, closed.

Owns the fds and what the kernel counted at them. Must not know queues, routes, or who the peers are.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from udpbackend.errors import HostError

SO_MEMINFO, SK_MEMINFO_DROPS = 55, 8  # asm-generic/socket.h, linux/sock_diag.h; Python's socket module lacks them
RECEIVES, SENDS = "udp-", "send-"
"""How the names of fds begin; a number follows."""


class Sockets:
    """`open` or `adopt`, then `close`."""

    def __init__(self) -> None:
        self._receivers: list[socket.socket] = []
        self._senders: list[socket.socket] = []
        """These only send: what a stranger sends to their ports is dropped as soon as a queue sends from them."""

    def __bool__(self) -> bool:
        return bool(self._receivers)

    def open(self, address: IPv4Address, port: int, *, queues: int, senders: int) -> None:
        """Binds one socket for each queue, and so many that only send, on ports that the kernel chooses."""
        self._receivers = _bind(address, port, queues)
        for _ in range(senders):
            self._senders.append(_bound(address, 0, share=False))

    def adopt(self, fds: Mapping[str, int]) -> None:
        """Takes over the sockets among fds of these names, in the order of their queues."""
        for kind, group in ((RECEIVES, self._receivers), (SENDS, self._senders)):
            group.extend(socket.socket(fileno=fd) for name, fd in fds.items() if name.startswith(kind))

    @property
    def receivers(self) -> Sequence[int]:
        """One for each queue; borrowed."""
        return [it.fileno() for it in self._receivers]

    @property
    def senders(self) -> Sequence[int]:
        """Those that all queues send from as well; borrowed."""
        return [it.fileno() for it in self._senders]

    @property
    def fds(self) -> dict[str, int]:
        """All by the names they have in another process; borrowed."""
        groups = ((RECEIVES, self.receivers), (SENDS, self.senders))
        return {f"{kind}{number}": fd for kind, group in groups for number, fd in enumerate(group)}

    def drops(self) -> int:
        """Datagrams that the kernel dropped at them."""
        return sum(map(_drops, self._receivers))

    def close(self) -> None:
        """Closes all."""
        for group in (self._receivers, self._senders):
            while group:
                group.pop().close()


def refuse_taken(address: IPv4Address, port: int) -> None:
    """Raises HostError if a UDP port is not free."""
    _bound(address, port, share=False).close()


def _drops(bound: socket.socket) -> int:
    raw = bound.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (SK_MEMINFO_DROPS + 1))
    return int(struct.unpack_from("=I", raw, 4 * SK_MEMINFO_DROPS)[0])


def _bind(address: IPv4Address, port: int, count: int) -> list[socket.socket]:
    """Sockets that share an address and a port."""
    # Once without sharing: who has the port already, sharing or not, shows only so.
    first = _bound(address, port, share=False)
    if count == 1:
        return [first]
    first.close()
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            made.append(_bound(address, port, share=True))  # noqa: PERF401 what is made must be closed on failure
    except HostError:
        for bound in made:
            bound.close()
        raise
    return made


def _bound(address: IPv4Address, port: int, *, share: bool) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
        bound.bind((str(address), port))
    except OSError as error:
        bound.close()
        why = os.strerror(error.errno) if error.errno else str(error)
        raise HostError(f"failed to start listening on UDP socket: {address}:{port}: {why}") from error
    return bound
