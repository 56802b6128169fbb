"""Differential: TCP and UDP mixes go through a daemon and come out byte for byte, each flow in its order.

A plain UDP socket in a peer's place controls every byte. Where packets come in, the daemon is held (SIGSTOP) while they
are sent, so that it takes them as one batch and joins what it can, UDP too; the pod's link then takes super-packets
apart and finishes every checksum, and what the pod's end sees is compared. Where they go out, super-packets are put
into flannel0 with a virtio header of ours.
"""

import random
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import packets
import pytest
import superpackets
from counted import Tally
from packets import DONT_FRAGMENT, TCP, UDP
from probe import SO_RCVBUFFORCE
from raw_packets import receive
from running import held
from superpackets import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, Segment

from bench.lab.daemon import PORT, Overlay
from bench.lab.topology import Host, Lab

BUFFER_BYTES = 1 << 20
"""A test sends some 300 datagrams before it reads the first: on Linux 6.1 266 filled an ordinary buffer."""
DEADLINE_S = 10
BATCH = 60
OFFLOADS = ("tx", "sg", "tso", "gso", "tx-udp-segmentation")


@dataclass
class Scene:
    """Host b runs a daemon. On host a only `peer` sends and listens, where a daemon would."""

    overlay: Overlay
    a: Host
    b: Host
    peer: socket.socket
    tally: Tally

    def flow(self, number: int, size: int = 1000, protocol: int = TCP, **fields) -> Segment:
        """From a pod of a to the pod of b, with packets of `size` bytes of data."""
        dice = random.Random(number)  # noqa: S311  (not for secrets)
        ends = (f"10.5.1.{2 + number % 2}", 40000 + number, self.b.pod_address, 5000)
        ip = {"identification": 65500, "fragment": DONT_FRAGMENT if number % 3 else 0}
        return Segment(ends, dice.randbytes(size), protocol, sequence=2**32 - 5000, ip=ip, **fields)

    def flows(self) -> list[Segment]:
        """Two of TCP and two of UDP between each of two pairs of addresses."""
        return [self.flow(i, (1000, 40)[i % 4 // 2], TCP if i % 8 < 4 else UDP) for i in range(8)]

    def send(self, burst: list[bytes]) -> None:
        with held(self.overlay.process(self.b)):
            for packet in burst:
                self.peer.sendto(packet, (self.b.address, PORT))

    def writes(self) -> int:
        """To flannel0, so far: fewer than packets where some were joined."""
        return self.tally.read()["rx_writes"]

    def drain(self) -> None:
        """Forgets what the pod has answered."""
        self.peer.settimeout(0)
        try:
            while True:
                self.peer.recv(65535)
        except BlockingIOError:
            self.peer.settimeout(DEADLINE_S)


@pytest.fixture(scope="module")
def scene(able):
    with Lab() as lab, Overlay(lab, "--offloads=udp-coalesce=on") as overlay:
        a, b = lab.hosts
        b.namespace.run("ethtool", "-K", "pod0", *(word for name in OFFLOADS for word in (name, "off")))
        overlay.launch(b)
        overlay.await_ready(b)
        with packets.udp_socket(a.namespace, a.address, PORT) as peer:
            peer.settimeout(DEADLINE_S)
            peer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            yield Scene(overlay, a, b, peer, Tally(overlay, b))
        overlay.stop_all()


@pytest.fixture(autouse=True)
def accounted(scene):
    """Both sides of the law, after every test."""
    scene.tally.mark()
    yield
    law = scene.overlay.settle(scene.b)["law"]
    assert (law["rx"]["unexplained"], law["tx"]["unexplained"]) == (0, 0)
    scene.drain()


# ---- the network to the pod ----


def through(scene: Scene, burst: list[bytes]) -> None:
    """All of the burst reaches the pod as the kernel forwards it."""
    scene.tally.mark()
    with packets.sniffer(scene.b.pod, "eth0") as seen:
        scene.send(burst)
        found = receive(seen, len(burst), DEADLINE_S)
        superpackets.compare(found, [packets.forwarded(packet) for packet in burst])
        assert receive(seen, 1, 0) == []
    scene.tally.await_grown("rx", {"rx_received": len(burst), "rx_delivered": len(burst)})


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("size", [1, 2, 33, 536, 1000, 1419])
@pytest.mark.parametrize("number", [1, 3], ids=["df", "no-df"])
def test_a_plain_flow_is_joined_and_comes_out_whole(scene, protocol, size, number):
    flows = [scene.flow(number, size, protocol)]
    dice = random.Random(size)  # noqa: S311
    before = scene.writes()
    through(scene, superpackets.mix(flows, BATCH, dice, ("",)))
    assert scene.writes() - before <= BATCH // 4


@pytest.mark.parametrize("what", superpackets.HAPPENINGS)
def test_one_thing_happens_in_the_middle(scene, what):
    """Of every flow, between packets that could be joined."""
    dice = random.Random(what)  # noqa: S311
    burst = []
    for number in range(8):
        flow = scene.flow(number, 100, TCP if number < 4 else UDP)
        for step in ("", "", what, "", ""):
            flow, packet = superpackets.happen(step, dice, flow)
            burst.append(packet)
    through(scene, burst)


@pytest.mark.parametrize("seed", range(20))
def test_a_mix_comes_out_as_it_was(scene, seed):
    dice = random.Random(seed)  # noqa: S311
    through(scene, superpackets.mix(scene.flows(), 200, dice))


@pytest.mark.parametrize("size", [40, 1000])
def test_a_burst_in_one_message(scene, size):
    """Equal datagrams that a peer's kernel sends as one: they may well arrive as one, too."""
    flows = [scene.flow(1, size)]
    burst = superpackets.mix(flows, 40, random.Random(size), ("",))  # noqa: S311
    before = scene.writes()
    control = [(socket.SOL_UDP, 103, struct.pack("=H", len(burst[0])))]
    with packets.sniffer(scene.b.pod, "eth0") as seen:
        scene.peer.sendmsg([b"".join(burst)], control, 0, (scene.b.address, PORT))
        found = receive(seen, len(burst), DEADLINE_S)
    superpackets.compare(found, [packets.forwarded(packet) for packet in burst])
    assert scene.writes() - before < len(burst)


# ---- one bit ----


def turned(packet: bytes, bit: int) -> bytes:
    return packet[: bit // 8] + bytes([packet[bit // 8] ^ 1 << bit % 8]) + packet[bit // 8 + 1 :]


def test_no_turned_bit_reaches_a_udp_socket(scene):
    """Every bit of a packet in turn, each between two good ones that could be joined with it."""
    port, before = 7100, scene.writes()
    ends = (scene.a.pod_address, 7000, scene.b.pod_address, port)
    with packets.udp_socket(scene.b.pod, scene.b.pod_address, port) as program:
        program.settimeout(DEADLINE_S)
        bits = range(8 * 40)
        for start in range(0, len(bits), BATCH // 3):
            burst, good = [], []
            for bit in bits[start : start + BATCH // 3]:
                three = [Segment(ends, struct.pack("!IQ", bit, i), UDP, ip={"identification": i}) for i in range(3)]
                burst += [three[0].packet(), turned(three[1].packet(), bit), three[2].packet()]
                good += [three[0].data, three[2].data]
            scene.send(burst)
            assert [program.recv(100) for _ in good] == good
        program.settimeout(0)
        with pytest.raises(BlockingIOError):
            program.recv(100)
    assert scene.writes() - before < 8 * 40 * 3, "good ones were joined"


def read(program: socket.socket, size: int) -> bytes:
    """So many bytes of a stream, fewer when it ends."""
    found = b""
    while len(found) < size and (data := program.recv(size - len(found))):
        found += data
    return found


@dataclass
class Client:
    """The near end of a TCP connection by hand, from a's pod to the pod of b."""

    scene: Scene
    port: int
    far_port: int
    sequence: int = 2**32 - 700
    expected: int = 0

    def segment(self, flags: int, data: bytes = b"") -> bytes:
        ends = (self.scene.a.pod_address, self.port, self.scene.b.pod_address, self.far_port)
        return Segment(
            ends, data, sequence=self.sequence, acknowledged=self.expected, flags=flags, ip={"fragment": DONT_FRAGMENT}
        ).packet()

    def connect(self) -> None:
        self.scene.peer.sendto(self.segment(SYN), (self.scene.b.address, PORT))
        while True:
            answer = self.scene.peer.recv(65535)
            if answer[9] == TCP and answer[20 + 13] & (SYN | ACK) == SYN | ACK:
                break
        self.sequence = (self.sequence + 1) % 2**32
        self.expected = int.from_bytes(answer[24:28], "big") + 1
        self.scene.peer.sendto(self.segment(ACK), (self.scene.b.address, PORT))

    def next(self, data: bytes) -> bytes:
        packet = self.segment(ACK, data)
        self.sequence = (self.sequence + len(data)) % 2**32
        return packet


def test_no_turned_bit_reaches_a_tcp_socket(scene):
    """Each segment comes damaged first, then whole: the stream is the one that was sent, and the connection lives."""

    def listen() -> socket.socket:
        made = socket.create_server((scene.b.pod_address, 0))
        made.settimeout(DEADLINE_S)
        return made

    before = scene.writes()
    with scene.b.pod.call(listen) as server:
        client = Client(scene, 41000, server.getsockname()[1])
        client.connect()
        program, _ = server.accept()
        with program:
            program.settimeout(DEADLINE_S)
            bits = range(8 * 48)
            for start in range(0, len(bits), BATCH // 3):
                burst, stream = [], b""
                for bit in bits[start : start + BATCH // 3]:
                    data = struct.pack("!II", bit, ~bit & 0xFFFFFFFF)
                    first = client.next(data)
                    whole = client.next(data[::-1])
                    burst += [first, turned(whole, bit), whole]
                    stream += data + data[::-1]
                scene.send(burst)
                assert read(program, len(stream)) == stream
            program.settimeout(0)
            with pytest.raises(BlockingIOError):
                program.recv(1)
            # It ends with a reset: a FIN that nobody answers would be sent again and again, into other tests.
            program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert scene.writes() - before < 8 * 48 * 3, "good ones were joined"


# ---- flannel0 to the network ----

TSO = {
    "plain": {},
    "push": {"flags": ACK | PSH},
    "fin": {"flags": ACK | PSH | FIN},
    "congestion": {"flags": ACK | CWR | ECE},
    "all-flags": {"flags": ACK | PSH | FIN | CWR | ECE | URG | RST, "urgent": 9},
    "timestamps": {"options": superpackets.TIMESTAMPS},
    "sack": {"options": superpackets.SACK},
    "ip-options": {"ip_options": b"\x01\x01\x01\x00"},
    "no-df": {"ip": {"fragment": 0, "identification": 65530}},
    "ecn": {"ip": {"fragment": DONT_FRAGMENT, "tos": 0xBB}},
    "udp": {"protocol": UDP},
    "udp-no-df": {"protocol": UDP, "ip": {"fragment": 0, "identification": 65530}},
}


def outbound(scene: Scene, size: int, **fields) -> bytes:
    """A packet from b's pod to a's that the kernel would hand over with its checksum unfinished."""
    fields = {"ip": {"fragment": DONT_FRAGMENT, "identification": 65530}, **fields}
    ends = (scene.b.pod_address, 5000, scene.a.pod_address, 5001)
    data = random.Random(size).randbytes(size)  # noqa: S311
    packet = Segment(ends, data, sequence=2**32 - 3000, **fields).packet()
    return superpackets.with_checksum(packet, finished=False)


def datagrams(scene: Scene, count: int) -> list[bytes]:
    """The next ones from b, all from its address and port."""
    found = [scene.peer.recvfrom(65535) for _ in range(count)]
    assert {sender for _, sender in found} == {(scene.b.address, PORT)}
    return [data for data, _ in found]


@pytest.mark.parametrize("fields", TSO.values(), ids=TSO)
@pytest.mark.parametrize(("size", "segment"), [(3000, 1000), (3001, 1000), (1001, 1000), (60000, 1400), (500, 7)])
def test_a_super_packet_leaves_as_its_segments(scene, fields, size, segment):
    packet = outbound(scene, size, **fields)
    kind = superpackets.GSO_UDP_L4 if packet[9] == UDP else superpackets.GSO_TCPV4
    if fields.get("flags", 0) & CWR:
        kind |= superpackets.GSO_ECN
    with superpackets.injector(scene.b.namespace, "flannel0") as device:
        made = superpackets.virtio_header(packet, segment, kind) + packet
        if packet[9] == UDP and not superpackets.UDP_TOO:
            with pytest.raises(OSError, match="Invalid argument"):
                device.sendto(made, ("flannel0", packets.ETH_P_IP))
            return
        device.sendto(made, ("flannel0", packets.ETH_P_IP))
        expected = superpackets.cut(packet, segment)
        found = datagrams(scene, len(expected))
    assert [data.hex() for data in found] == [data.hex() for data in expected]


def test_super_packets_and_packets_leave_in_order(scene):
    dice = random.Random(4)  # noqa: S311
    names = [name for name, it in TSO.items() if superpackets.UDP_TOO or it.get("protocol") != UDP]
    expected = []
    with superpackets.injector(scene.b.namespace, "flannel0") as device:
        for _ in range(60):
            packet = outbound(scene, dice.randrange(1, 8000), **TSO[dice.choice(names)])
            size = dice.choice((600, 1000, 1400))
            whole = len(packet) - packets.header_bytes(packet) - 32 <= size
            kind = superpackets.GSO_NONE if whole else None
            header = superpackets.virtio_header(packet, 0 if whole else size, kind)
            device.sendto(header + packet, ("flannel0", packets.ETH_P_IP))
            expected += [superpackets.with_checksum(packet, finished=True)] if whole else superpackets.cut(packet, size)
        found = datagrams(scene, len(expected))
    assert [data.hex() for data in found] == [data.hex() for data in expected]


@pytest.mark.parametrize("offset", [0, 2, 6])
def test_a_checksum_inside_the_ip_header_is_refused(scene, offset):
    """What can send raw packets, as a pod can, can ask for it; the header has been validated and must stay valid.

    Kernels of today see to it that the sum begins behind the first 20 bytes. Options come after these.
    """
    packet = outbound(scene, 100, protocol=UDP, ip_options=bytes([1] * 8))
    header = superpackets.virtio_header(packet, 0, superpackets.GSO_NONE, start=20, offset=offset)
    with superpackets.injector(scene.b.namespace, "flannel0") as device:
        device.sendto(header + packet, ("flannel0", packets.ETH_P_IP))
        scene.tally.await_grown("tx", {"tx_received": 1, "tx_drop_offload": 1})
        good = outbound(scene, 100)
        device.sendto(superpackets.virtio_header(good, 0, 0) + good, ("flannel0", packets.ETH_P_IP))
        assert datagrams(scene, 1) == [superpackets.with_checksum(good, finished=True)]


# ---- the wire ----


def carry(a: Host, b: Host, size: int) -> None:
    """TCP from pod to pod, as fast as it goes."""

    def take() -> None:
        program, _ = server.accept()
        with program:
            left = size
            while left and (data := program.recv(1 << 20)):
                left -= len(data)
            assert left == 0

    with (
        b.pod.call(lambda: socket.create_server((b.pod_address, 5300))) as server,
        a.pod.call(lambda: socket.create_connection((b.pod_address, 5300), DEADLINE_S)) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        server.settimeout(DEADLINE_S)
        reader = pool.submit(take)
        client.sendall(bytes(size))
        reader.result(DEADLINE_S)


def test_each_datagram_on_the_wire_is_one_packet(make_overlay):
    """Seen at the sender's end of a link that takes nothing larger than its MTU, while a TCP stream runs."""
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    for host in (a, b):
        off = ("tso", "off", "gso", "off", "tx-udp-segmentation", "off", "tx-udp_tnl-segmentation", "off", "gro", "on")
        host.namespace.run("ethtool", "-K", "eth0", *off)
    with packets.sniffer(a.namespace, "eth0", 0x0003) as seen:
        seen.settimeout(DEADLINE_S)
        found = []
        carry(a, b, 8 << 20)
        end = time.monotonic() + DEADLINE_S
        while len(found) < 1000 and time.monotonic() < end:
            data, address = seen.recvfrom(65535)
            if address[2] == socket.PACKET_OUTGOING and data[9] == UDP:
                found.append(data)
    assert len(found) == 1000
    assert max(len(data) for data in found) == overlay.lab.mtu
    for data in found:
        inner = data[28:]
        assert packets.ones_complement_sum(data[:20]) == 0xFFFF
        assert data[12:20] == socket.inet_aton(a.address) + socket.inet_aton(b.address)
        assert int.from_bytes(data[6:8], "big") & 0x3FFF == 0, "a fragment"
        assert struct.unpack("!HHH", data[20:26]) == (PORT, PORT, len(data) - 20)
        assert int.from_bytes(data[2:4], "big") == len(data)
        assert packets.is_sound(inner)
