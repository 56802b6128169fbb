"""IP packets made and read by hand, byte for byte, and sockets that see what really passes.

Owns header layouts and checksums in the plainest form there is, so that it can be trusted to judge the daemon's. Knows
no hosts and no daemons. Sockets are made inside a namespace and used from outside: a socket stays where it was made.
"""

import ctypes
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from bench.lab.netns import Namespace

EXPERIMENT = 253
"""RFC 3692: no other program listens, and no kernel code looks inside."""
ICMP, TCP, UDP = 1, 6, 17
DONT_FRAGMENT, MORE_FRAGMENTS = 0x4000, 0x2000
ETH_P_IP = 0x0800
SO_ATTACH_FILTER = 26
NO_MULTICAST = ctypes.create_string_buffer(
    struct.pack("HBBI", 0x20, 0, 0, 0xFFFFF004)  # load the packet's kind (SKF_AD_PKTTYPE of linux/filter.h)
    + struct.pack("HBBI", 0x15, 0, 1, 2)  # PACKET_MULTICAST?
    + struct.pack("HBBI", 0x06, 0, 0, 0)  # then drop it
    + struct.pack("HBBI", 0x06, 0, 0, 1 << 18)  # otherwise pass all of it
)


def ones_complement_sum(data: bytes) -> int:
    """RFC 1071, folded, not inverted."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> int:
    return 0xFFFF - ones_complement_sum(data)


def header_bytes(packet: bytes) -> int:
    return (packet[0] & 15) * 4


def sealed(packet: bytes) -> bytes:
    """The same with the right header checksum."""
    blank = packet[:10] + bytes(2) + packet[12:]
    return blank[:10] + checksum(blank[: header_bytes(packet)]).to_bytes(2, "big") + blank[12:]


def ipv4(source: str, destination: str, payload: bytes = b"", *, options: bytes = b"", **fields: int) -> bytes:
    """A whole packet. `fields`: protocol, ttl, tos, identification, fragment (flags and offset)."""
    protocol, ttl, tos = fields.pop("protocol", EXPERIMENT), fields.pop("ttl", 64), fields.pop("tos", 0)
    identification, fragment = fields.pop("identification", 1), fields.pop("fragment", 0)
    assert not fields
    assert len(options) % 4 == 0
    length = 20 + len(options) + len(payload)
    first = 0x45 + len(options) // 4
    start = struct.pack("!BBHHHBBH", first, tos, length, identification, fragment, ttl, protocol, 0)
    return sealed(start + socket.inet_aton(source) + socket.inet_aton(destination) + options + payload)


def ipv6(source: str, destination: str, payload: bytes = b"") -> bytes:
    start = struct.pack("!IHBB", 6 << 28, len(payload), EXPERIMENT, 64)
    return start + socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination) + payload


def _pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    return source + destination + struct.pack("!HH", protocol, length)


def udp(source: tuple[str, int], destination: tuple[str, int], data: bytes, **fields: int) -> bytes:
    """A packet that holds a UDP datagram."""
    length = 8 + len(data)
    addresses = socket.inet_aton(source[0]), socket.inet_aton(destination[0])
    start = struct.pack("!HHH", source[1], destination[1], length)
    found = checksum(_pseudo_header(*addresses, UDP, length) + start + data) or 0xFFFF
    return ipv4(source[0], destination[0], start + struct.pack("!H", found) + data, protocol=UDP, **fields)


def tcp(source: tuple[str, int], destination: tuple[str, int], fields: bytes, data: bytes = b"") -> bytes:
    """A packet that holds a TCP segment; `fields` are its header after the ports, with a zero for the checksum."""
    addresses = socket.inet_aton(source[0]), socket.inet_aton(destination[0])
    segment = struct.pack("!HH", source[1], destination[1]) + fields + data
    found = checksum(_pseudo_header(*addresses, TCP, len(segment)) + segment)
    segment = segment[:16] + struct.pack("!H", found) + segment[18:]
    return ipv4(source[0], destination[0], segment, protocol=TCP, fragment=DONT_FRAGMENT)


def icmp(source: str, destination: str, kind: tuple[int, int], body: bytes) -> bytes:
    """A packet that holds an ICMP message of a type and a code; `body` is all that follows its checksum."""
    found = checksum(bytes(kind) + bytes(2) + body)
    return ipv4(source, destination, bytes(kind) + struct.pack("!H", found) + body, protocol=ICMP)


def forwarded(packet: bytes, hops: int = 1) -> bytes:
    """What a kernel makes of a packet that it forwards."""
    return sealed(packet[:8] + bytes([packet[8] - hops]) + packet[9:])


def is_sound(packet: bytes) -> bool:
    """Whether header checksum and total length are right, and the checksum of UDP, TCP or ICMP is."""
    length = header_bytes(packet)
    body, protocol = packet[length:], packet[9]
    if ones_complement_sum(packet[:length]) != 0xFFFF or int.from_bytes(packet[2:4], "big") != len(packet):
        return False
    if protocol == ICMP:
        return ones_complement_sum(body) == 0xFFFF
    if protocol not in (TCP, UDP):
        return True
    return ones_complement_sum(_pseudo_header(packet[12:16], packet[16:20], protocol, len(body)) + body) == 0xFFFF


@contextmanager
def opened(namespace: Namespace, make: Callable[[], socket.socket]) -> Iterator[socket.socket]:
    """A socket made inside, with a large receive buffer."""
    with namespace.call(make) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        yield made


def udp_socket(namespace: Namespace, address: str, port: int = 0) -> AbstractContextManager[socket.socket]:
    """A plain UDP socket."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        return made

    return opened(namespace, make)


def raw_socket(namespace: Namespace) -> AbstractContextManager[socket.socket]:
    """Sends whole packets as they are given, as this host; receives none."""

    def make() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    return opened(namespace, make)


def sniffer(namespace: Namespace, device: str, protocol: int = ETH_P_IP) -> AbstractContextManager[socket.socket]:
    """Receives every packet that comes in at a device, without link header; sends into it whatever it is given.

    Not what comes by a link's multicast: a bridge joins groups when it likes, and says so to every pod.
    """

    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)  # deaf until it is bound to one device
        made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 4, ctypes.addressof(NO_MULTICAST)))
        made.bind((device, protocol))
        return made

    return opened(namespace, make)
