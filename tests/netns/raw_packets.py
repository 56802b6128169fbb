"""Raw IPv4 packets of chosen sizes between two namespaces.

Owns two sockets and what a packet of a given size contains; knows no hosts and no daemons. The sockets are made inside
their namespaces and used from outside: a socket stays where it was made.
"""

import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.lab.netns import Namespace

PROTOCOL = 253
"""For experiments (RFC 3692): no other program listens, and no kernel code looks inside."""

HEADER_BYTES = 20


def payload(size: int) -> bytes:
    """What follows the header in a packet of `size` bytes: random, but the same at both ends."""
    return random.Random(size).randbytes(size - HEADER_BYTES)  # noqa: S311  (not for secrets)


@contextmanager
def raw_socket(namespace: Namespace) -> Iterator[socket.socket]:
    """A socket that sends whole packets as given and receives every packet of PROTOCOL, header included."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        return made

    with namespace.call(make) as made:
        yield made


def packet(source: str, destination: str, size: int) -> bytes:
    """A packet of `size` bytes; the kernel fills in the checksum of a header that comes through a raw socket."""
    identity, fragment, ttl, tos = size, 0x4000, 64, 0xB8
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    return struct.pack("!BBHHHBBH8s", 0x45, tos, size, identity, fragment, ttl, PROTOCOL, 0, addresses) + payload(size)


def receive(sock: socket.socket, count: int, deadline_s: float) -> list[bytes]:
    """The next `count` packets, fewer when the deadline comes first."""
    end, found = time.monotonic() + deadline_s, []
    while len(found) < count and select.select([sock], [], [], max(0.0, end - time.monotonic()))[0]:
        found.append(sock.recv(65535))
    return found
