"""What each running daemon of ours on this host calls its own: a network, and the devices it has for it.

Owns the names under which that is told, and the refusal of a second daemon with any of it. Must not know what networks
or devices are for.

Theory of operation: a claim is a listening socket with an abstract name, which lives in the network namespace as
devices, routes and rules do: containers that share the host's network see each other's, whatever PIDs and files they
see, and the kernel takes it back when its holder ends, however that is. Any user may take such a name; so only the
claim of root, or of whoever we are ourselves, counts. Where a policy of the host keeps us from such sockets, a daemon
works without: then it only does not see the others, nor they it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from udpbackend.errors import ConfigError, HostError
from udpbackend.model import Prefix

log = logging.getLogger(__name__)

NAME = "udp-backend"
SOCKETS = Path("/proc/thread-self/net/unix")
UCRED = struct.Struct("3i")
CONNECT_S = 1.0
WAITING = 64
"""So many may ask before the first is let go."""


class Claim(NamedTuple):
    """What one daemon has."""

    devices: tuple[str, ...]
    networks: tuple[Prefix, ...]

    @property
    def name(self) -> str:
        """Of its socket: `udp-backend flannel.1 10.5.0.0/16`, each a list by commas."""
        return " ".join((NAME, ",".join(self.devices) or "-", ",".join(map(str, self.networks))))

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """None for a socket of another kind."""
        words = name.split(" ")
        if len(words) != len(cls._fields) + 1 or words[0] != NAME:
            return None
        try:
            networks = tuple(map(Prefix.parse, words[2].split(",")))
        except ConfigError:
            return None
        return cls(tuple(it for it in words[1].split(",") if it != "-"), networks)

    def rivals(self, other: Claim) -> str:
        """What both want, in words; empty if each can have its own."""
        if shared := [it for it in self.devices if it in other.devices]:
            return f"{shared[0]} is in use by another udp-backend of this host: stop it first, or {ITS_OWN}"
        for mine in self.networks:
            for its in other.networks:
                if mine.overlaps(its):
                    return f"{mine} overlaps {its}, which another udp-backend of this host has: stop it first, or {ONE}"
        return ""


ITS_OWN = "give each network a Backend.VNI of its own"
ONE = "choose networks that have no address in common"


class Held:
    """A claim of ours, until `release`. Made where an event loop runs, which lets go of whoever has asked."""

    def __init__(self, claim: Claim) -> None:
        """Raises HostError if another daemon has something of it."""
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self.told = self._bind(claim)
            """Whether other daemons can see it."""
            problem = next(filter(None, (claim.rivals(other) for other in claims() if other != claim)), None)
        except BaseException:
            self._socket.close()
            raise
        if problem:
            self._socket.close()
            raise HostError(problem)
        if self.told:  # a socket that does not listen would be ready for ever
            self._loop.add_reader(self._socket, self._answer)

    def release(self) -> None:
        """Gives it up."""
        if self.told:
            self._loop.remove_reader(self._socket)
        self._socket.close()

    def _answer(self) -> None:
        with suppress(OSError):
            self._socket.accept()[0].close()

    def _bind(self, claim: Claim) -> bool:
        """Whether it is told. Raises HostError where another daemon claims the very same."""
        try:
            self._socket.bind(f"\0{claim.name}")
            self._socket.listen(WAITING)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and claim in claims():
                raise HostError(claim.rivals(claim)) from None
            # In use by somebody whose word does not count, or not allowed: to go on without is better than not at all.
            log.warning("other daemons of this host are not told what is ours (%s): %s", claim.name, error.strerror)
            return False
        return True


def claims() -> list[Claim]:
    """Those of all daemons of ours on this host, this process's own too; none where they cannot be seen."""
    try:
        lines = SOCKETS.read_text(errors="replace").splitlines()
    except OSError:
        return []
    # Any column before the name is one word; the name may hold blanks, and an abstract one is shown with an @.
    names = {line.partition(f" @{NAME} ")[2] for line in lines if f" @{NAME} " in line}
    found = (Claim.parse(f"{NAME} {name}") for name in sorted(names))
    return [it for it in found if it is not None and _counts(it)]


def networks_of(found: Sequence[Claim], *, but: Collection[str] = ()) -> list[Prefix]:
    """The networks of all claims but those of these devices."""
    return [network for it in found if not set(it.devices).intersection(but) for network in it.networks]


def _counts(claim: Claim) -> bool:
    """Whether its holder is root or who we are."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(CONNECT_S)
        try:
            asking.connect(f"\0{claim.name}")
            _, user, _ = UCRED.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
        except OSError:
            return False  # it has gone, or lets nobody ask
    return user in (0, os.geteuid())
