"""TCP on the wire: a pod's kernel talks to a TCP made by hand behind a plain UDP socket in the place of a peer.

However packets are put together for speed on the way, each datagram is one sound packet that fits the overlay's MTU.
"""

import socket
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

import packets
import pytest

from bench.lab.daemon import PORT, Overlay
from bench.lab.topology import Host, Lab
from bench.lab.wait import until

FIN, SYN, PSH, ACK = 1, 2, 8, 16
WINDOW = 60000
MSS_BYTES = 1432
DEADLINE_S = 10


class Segment(NamedTuple):
    port: int
    sequence: int
    acknowledged: int
    flags: int
    data: bytes
    packet: bytes


@dataclass
class Handmade:
    """The far end of one connection: 10.5.2.2 port 80, without options but the segment size."""

    a: Host
    b: Host
    socket: socket.socket
    sequence: int = 0xFFFFFF00  # so that it wraps
    expected: int = 0
    port: int = 0
    seen: list[Segment] = field(default_factory=list)

    def next(self) -> Segment:
        """The next segment from the pod, which must be sound."""
        packet, sender = self.socket.recvfrom(65535)
        assert sender == (self.a.address, PORT)
        assert packets.is_sound(packet)
        assert len(packet) <= self.a.overlay_mtu
        assert packet[9] == packets.TCP
        header = packet[20:]
        port, _, sequence, acknowledged, length, flags = struct.unpack_from("!HHIIBB", header)
        found = Segment(port, sequence, acknowledged, flags, header[(length >> 4) * 4 :], packet)
        self.seen.append(found)
        return found

    def segment(self, flags: int, data: bytes = b"", options: bytes = b"") -> bytes:
        """The packet that `send` sends; what it says counts as sent."""
        numbers = struct.pack("!II", self.sequence, self.expected)
        length = (20 + len(options)) // 4 << 4
        fields = numbers + struct.pack("!BBHHH", length, flags, WINDOW, 0, 0) + options
        self.sequence = (self.sequence + len(data) + bool(flags & (SYN | FIN))) % 2**32
        return packets.tcp((self.b.pod_address, 80), (self.a.pod_address, self.port), fields, data)

    def send(self, flags: int, data: bytes = b"", options: bytes = b"") -> None:
        self.put(self.segment(flags, data, options))

    def put(self, packet: bytes) -> None:
        self.socket.sendto(packet, (self.a.address, PORT))

    def accept(self) -> None:
        first = self.next()
        while first.flags != SYN:  # what the connection before has still to say
            first = self.next()
        self.port, self.expected = first.port, (first.sequence + 1) % 2**32
        self.send(SYN | ACK, options=struct.pack("!BBH", 2, 4, MSS_BYTES))
        while (answer := self.next()).port != self.port or answer.flags == SYN:  # again, if we have let it wait
            pass
        assert answer.flags & (SYN | ACK) == ACK

    def read(self, size: int) -> bytes:
        """So many bytes of the stream, acknowledged as they come."""
        stream = b""
        while len(stream) < size:
            got = self.next()
            if got.data and (got.port, got.sequence) == (self.port, self.expected):
                stream += got.data
                self.expected = (self.expected + len(got.data)) % 2**32
                self.send(ACK)
        return stream


@pytest.fixture(scope="module")
def far(able):
    with Lab() as lab, Overlay(lab) as overlay:
        a, b = lab.hosts
        overlay.launch(a)
        overlay.await_ready(a)
        with packets.udp_socket(b.namespace, b.address, PORT) as peer:
            peer.settimeout(DEADLINE_S)
            yield Handmade(a, b, peer)
        overlay.stop_all()


@pytest.fixture
def near(far):
    """The pod's end of a connection to `far`; it is reset in the end."""
    with far.a.pod.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as pod:
        pod.settimeout(0)
        pod.connect_ex((far.b.pod_address, 80))
        far.accept()
        pod.settimeout(DEADLINE_S)
        pod.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        yield pod
    far.seen.clear()


def received(pod, size):
    """The next bytes of the stream; fewer when it ends."""
    found = b""
    while len(found) < size and (more := pod.recv(size - len(found))):
        found += more
    return found


def damaged_segments(pod):
    """How many segments with a wrong checksum the pod's kernel has seen."""
    names, values = (line.split() for line in pod.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("InCsumErrors")])


def test_a_stream_leaves_in_sound_segments(near, far):
    stream = bytes(range(256)) * 800
    near.settimeout(0)
    sent = near.send(stream)  # what its buffer takes; the kernel may well hand it on in super-packets
    assert far.read(sent) == stream[:sent]
    assert sent > 10 * MSS_BYTES
    assert max(len(segment.data) for segment in far.seen) == MSS_BYTES
    identifications = [segment.packet[4:6] for segment in far.seen if segment.data]
    assert len(set(identifications)) == len(identifications)


def test_a_stream_arrives_from_many_segments(near, far):
    stream = bytes(reversed(range(256))) * 200
    for start in range(0, len(stream), MSS_BYTES):
        far.send(ACK, stream[start : start + MSS_BYTES])
    assert received(near, len(stream)) == stream


@pytest.mark.parametrize("size", [1, 2, 7, 536, 1431])
def test_a_stream_arrives_from_odd_segments(near, far, size):
    stream = bytes(range(251)) * 20
    for start in range(0, len(stream), size):
        far.send(ACK | (PSH if start % 3 else 0), stream[start : start + size])
    assert received(near, len(stream)) == stream


def test_a_damaged_segment_is_left_to_tcp(near, far):
    """Its payload is not ours to check: the pod's kernel must see that it is damaged, whatever is near it."""
    good = [bytes([i]) * 1000 for i in range(1, 5)]
    start, before = far.sequence, damaged_segments(far.a.pod)
    for i, data in enumerate(good):
        packet = far.segment(ACK, data)
        far.put(packet if i != 2 else packet[:-1] + bytes([packet[-1] ^ 1]))
    assert received(near, 2000) == good[0] + good[1]
    until(lambda: damaged_segments(far.a.pod) == before + 1, DEADLINE_S, "the pod has not seen the damage")
    near.settimeout(0)
    with pytest.raises(BlockingIOError):
        near.recv(1)
    far.sequence = (start + 2000) % 2**32
    far.send(ACK, good[2])
    near.settimeout(DEADLINE_S)
    assert received(near, 2000) == good[2] + good[3]
    far.sequence = (start + 4000) % 2**32
