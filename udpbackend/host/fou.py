"""FOU ports: UDP ports whose datagrams the kernel itself takes the packets out of.

Owns the generic netlink messages of the family "fou" (linux/fou.h), both ways, and what may be asked for of it. Must
not know devices, nor why a port is wanted. Blocks for microseconds, so it is used inside `Netlink.call` and in threads.

A port of ours is one of type GUE at one local address: in version 1 of GUE a datagram is an IP packet and nothing else,
and its first four bits say which IP version, so one port takes both. The other type, FOU proper, takes one of them.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from socket import AF_INET
from typing import NamedTuple

from udpbackend.host.bulk import Answer, Bulk
from udpbackend.host.entries import ACK, DUMP, Request, attributes
from udpbackend.host.rtnetlink import attribute

NETLINK_GENERIC = 16
FAMILY_NAME = b"fou\0"
GENERIC_HEADER = struct.Struct("=BBxx")
"""genlmsghdr: command, version."""
CONTROL, GET_FAMILY, FAMILY_ID, NAME_OF_FAMILY = 16, 3, 1, 2
"""linux/genetlink.h: GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID and _NAME."""
ADD, DELETE, GET, VERSION = 1, 2, 3, 1
PORT, FAMILY, TYPE, LOCAL = 1, 2, 4, 6
"""FOU_ATTR_PORT (network byte order), _AF, _TYPE, _LOCAL_V4."""
GUE = 2
"""FOU_ENCAP_GUE."""


class FouPort(NamedTuple):
    """A port as we make it; one that another program has made may differ in more than is said here."""

    port: int
    local: IPv4Address | None
    """None: of all this host's addresses."""
    gue: bool = True

    def packed(self) -> bytes:
        """The attributes of a request."""
        parts = [attribute(PORT, self.port.to_bytes(2, "big")), attribute(FAMILY, bytes([AF_INET]))]
        if self.local is not None:
            parts.append(attribute(LOCAL, self.local.packed))
        return b"".join(parts)

    def __str__(self) -> str:
        return f"FOU port {self.port}" + (f" of {self.local}" if self.local is not None else "")


def exists() -> bool:
    """Whether the kernel knows FOU now. Raises OSError where it cannot be asked."""
    try:
        with Bulk(NETLINK_GENERIC) as bulk:
            return _family(bulk) is not None
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            return False
        raise


def ports() -> list[FouPort]:
    """All of this network namespace, whoever has made them; none where the kernel does not know FOU. Raises OSError."""
    if not exists():
        return []
    with _asking() as (bulk, family):
        return [
            it for body in bulk.dump(Request(family, DUMP, GENERIC_HEADER.pack(GET, VERSION))) if (it := read(body))
        ]


def add(port: FouPort) -> None:
    """Makes it. Raises OSError: EADDRINUSE where a socket or another FOU port has it."""
    with _asking() as (bulk, family):
        body = GENERIC_HEADER.pack(ADD, VERSION) + port.packed() + attribute(TYPE, bytes([GUE]))
        _raise(bulk.exchange([Request(family, ACK, body)])[0])


def delete(port: FouPort) -> bool:
    """Takes it away; False if there was none. Raises OSError."""
    try:
        with _asking() as (bulk, family):
            body = GENERIC_HEADER.pack(DELETE, VERSION) + port.packed()
            _raise(bulk.exchange([Request(family, ACK, body)])[0])
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP):  # EINVAL is what the kernel says for none
            return False
        raise
    return True


def read(body: bytes) -> FouPort | None:
    """A port of a dump; None for one of IPv6, which none of ours is."""
    found = dict(attributes(body, GENERIC_HEADER.size))
    if found.get(FAMILY, b"")[:1] != bytes([AF_INET]) or len(found.get(PORT, b"")) != 2:
        return None
    local = IPv4Address(found[LOCAL]) if len(found.get(LOCAL, b"")) == 4 and any(found[LOCAL]) else None
    return FouPort(int.from_bytes(found[PORT], "big"), local, found.get(TYPE, b"")[:1] == bytes([GUE]))


@contextmanager
def _asking() -> Iterator[tuple[Bulk, int]]:
    with Bulk(NETLINK_GENERIC) as bulk:
        family = _family(bulk)
        if family is None:
            raise OSError(errno.EOPNOTSUPP, "the kernel knows no FOU: its module fou is not loaded")
        yield bulk, family


def _family(bulk: Bulk) -> int | None:
    """The number that the kernel has given to the family "fou" when its module was loaded."""
    body = GENERIC_HEADER.pack(GET_FAMILY, 1) + attribute(NAME_OF_FAMILY, FAMILY_NAME)
    answer = bulk.exchange([Request(CONTROL, 0, body)])[0]
    if isinstance(answer, OSError):
        if answer.errno == errno.ENOENT:
            return None
        raise answer
    return int.from_bytes(dict(attributes(answer, GENERIC_HEADER.size))[FAMILY_ID], sys.byteorder)


def _raise(answer: Answer) -> None:
    if isinstance(answer, OSError):
        raise answer
