"""Packets that are none: each is counted by what is wrong with it, nothing comes through, and the daemon lives on."""

import random
import socket
from dataclasses import dataclass

import packets
import pytest
from counted import Tally
from raw_packets import receive

from bench.lab import traffic
from bench.lab.daemon import PORT, Overlay
from bench.lab.topology import Host, Lab

SHORT, VERSION, HEADER_LENGTH = "drop_short", "drop_version", "drop_header_length"
LENGTH, HEADER_CHECKSUM = "drop_length", "drop_header_checksum"
WRONGS = (SHORT, VERSION, HEADER_LENGTH, LENGTH, HEADER_CHECKSUM)
ETH_P_ALL = 0x0003
RANDOM_DATAGRAMS, BURST = 10_000, 200


@dataclass
class Scene:
    overlay: Overlay
    a: Host
    b: Host
    tally: Tally
    peer: socket.socket
    """On host b, beside its daemon."""

    def send(self, *datagrams: bytes) -> None:
        for data in datagrams:
            self.peer.sendto(data, (self.a.address, PORT))


@pytest.fixture(scope="module")
def scene(able):
    with Lab() as lab, Overlay(lab) as overlay:
        a, b = lab.hosts
        overlay.start_all()
        with packets.udp_socket(b.namespace, b.address) as peer:
            yield Scene(overlay, a, b, Tally(overlay, a), peer)
        overlay.stop_all()


@pytest.fixture(autouse=True)
def alive(scene):
    """Whatever a test sends, both daemons carry packets after it."""
    scene.tally.mark()
    yield
    assert traffic.ping(scene.a.pod, scene.b.pod_address, count=3).received == 3


def good(scene, size=60, **fields):
    return packets.ipv4(scene.b.pod_address, scene.a.pod_address, bytes(range(size - 20)), **fields)


def with_byte(packet, position, value):
    return packet[:position] + bytes([value]) + packet[position + 1 :]


def with_length(packet, length):
    return packets.sealed(packet[:2] + length.to_bytes(2, "big") + packet[4:])


def with_header_words(packet, words):
    return packets.sealed(with_byte(packet, 0, 0x40 + words))


def verdict(data: bytes) -> str | None:
    """What is wrong with a packet, in the order in which it shows; None for one that is whole. Written from RFC 791."""
    if len(data) < 20:
        return SHORT
    if data[0] >> 4 == 6:
        return ipv6_verdict(data)
    if data[0] >> 4 != 4:
        return VERSION
    header = packets.header_bytes(data)
    if header < 20 or header > len(data):
        return HEADER_LENGTH
    if int.from_bytes(data[2:4], "big") != len(data):
        return LENGTH
    return HEADER_CHECKSUM if packets.ones_complement_sum(data[:header]) != 0xFFFF else None


def ipv6_verdict(data: bytes) -> str | None:
    if len(data) < 40:
        return SHORT
    return LENGTH if int.from_bytes(data[4:6], "big") != len(data) - 40 else None


def malformed(scene) -> dict[str, list[tuple[bytes, str]]]:
    """Packets with what is wrong with each, by kind."""
    whole = good(scene)
    v6 = packets.ipv6("fd00::1", "fd00::2", bytes(20))
    return {
        "zeros": [(bytes(n), SHORT if n < 20 else VERSION) for n in range(61)],
        "cut-short": [(whole[:n], SHORT if n < 20 else LENGTH) for n in range(60)],
        "cut-short-and-said-so": [(with_length(whole[:n], n), SHORT) for n in range(12, 20)],
        "version": [(with_byte(whole, 0, v << 4 | 5), VERSION) for v in range(16) if v not in (4, 6)],
        "ihl-too-small": [(with_byte(whole, 0, 0x40 + n), HEADER_LENGTH) for n in range(5)],
        "ihl-beyond-the-end": [
            (with_header_words(with_length(whole[:n], n), words), HEADER_LENGTH)
            for n, words in ((20, 6), (23, 6), (24, 7), (59, 15))
        ],
        "total-length": [(with_length(whole, n), LENGTH) for n in (0, 1, 19, 20, 59, 61, 1500, 65535)],
        "header-checksum": [
            (with_byte(whole, bit // 8, whole[bit // 8] ^ 1 << bit % 8), HEADER_CHECKSUM) for bit in range(64, 160)
        ],
        "header-checksum-zero": [(whole[:10] + bytes(2) + whole[12:], HEADER_CHECKSUM)],
        "options-under-no-checksum": [
            (with_byte(packets.ipv4("10.5.2.2", "10.5.1.2", options=bytes(8)), 22, 1), HEADER_CHECKSUM)
        ],
        "ipv6-cut-short": [(v6[:n], SHORT) for n in range(20, 40)],
        "ipv6-length": [(v6[:n], LENGTH) for n in range(40, 60)] + [(v6 + b"x", LENGTH)],
    }


KINDS = [
    *("zeros", "cut-short", "cut-short-and-said-so", "version", "ihl-too-small", "ihl-beyond-the-end"),
    *("total-length", "header-checksum", "header-checksum-zero", "options-under-no-checksum"),
    *("ipv6-cut-short", "ipv6-length"),
]


def tallied(cases, direction):
    expected = {f"{direction}_received": len(cases)}
    for _, wrong in cases:
        name = f"{direction}_{wrong}"
        expected[name] = expected.get(name, 0) + 1
    return expected


def test_every_kind_is_tried(scene):
    assert list(malformed(scene)) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_oracle_agrees(scene, kind):
    """The random test below trusts it."""
    assert [(data, verdict(data)) for data, _ in malformed(scene)[kind]] == malformed(scene)[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_network(scene, kind):
    cases = malformed(scene)[kind]
    whole = good(scene)
    with packets.sniffer(scene.a.namespace, "flannel0", ETH_P_ALL) as seen:
        scene.send(*(data for data, _ in cases))
        scene.tally.await_grown("rx", tallied(cases, "rx"))
        scene.send(whole)
        assert receive(seen, 1, 5) == [whole]


@pytest.mark.parametrize("kind", KINDS)
def test_from_flannel0(scene, kind):
    """Programs of this host can put anything into it. An empty packet never reaches us: the kernel refuses it."""
    cases = [(data, wrong) for data, wrong in malformed(scene)[kind] if data]
    with packets.sniffer(scene.a.namespace, "flannel0") as device, packets.sniffer(scene.b.namespace, "eth0") as wire:
        for data, _ in cases:
            device.sendto(data, ("flannel0", packets.ETH_P_IP))
        scene.tally.await_grown("tx", tallied(cases, "tx"))
        whole = packets.ipv4(scene.a.pod_address, scene.b.pod_address, b"after all of them")
        device.sendto(whole, ("flannel0", packets.ETH_P_IP))
        [datagram] = receive(wire, 1, 5)
    assert datagram[28:] == whole


@pytest.mark.parametrize("source", ["fd00::1", "2001:db8::1"])
def test_ipv6_has_no_routes(scene, source):
    scene.send(packets.ipv6(source, "fd00::2", b"x"))
    scene.tally.await_grown("rx", {"rx_received": 1, "rx_drop_inner_source": 1})


@pytest.mark.parametrize("source", ["::", "::1", "fe80::1", "ff02::1", "::ffff:10.5.2.2"])
def test_ipv6_from_no_host(scene, source):
    scene.send(packets.ipv6(source, "fd00::2", b"x"))
    scene.tally.await_grown("rx", {"rx_received": 1, "rx_drop_martian_source": 1})


def test_ipv6_from_flannel0_has_no_routes_and_no_answer(scene):
    with packets.sniffer(scene.a.namespace, "flannel0", ETH_P_ALL) as device:
        device.sendto(packets.ipv6("fd00::1", "fd00::2", b"x"), ("flannel0", 0x86DD))
        scene.tally.await_grown("tx", {"tx_received": 1, "tx_drop_no_route": 1})


def test_a_datagram_longer_than_any_mtu(scene):
    """65,507 bytes come in fragments that the kernel puts together; as a packet they are whole, only large."""
    largest = packets.ipv4(scene.b.pod_address, scene.a.gateway, bytes(65507 - 20))
    scene.send(largest, largest, largest[:-1])
    scene.tally.await_grown("rx", {"rx_received": 3, "rx_delivered": 2, "rx_drop_length": 1})


def fate(data: bytes) -> str:
    """The counter of a datagram from host b. Turned bits can make up for each other and leave a whole packet."""
    if wrong := verdict(data):
        return f"rx_{wrong}"
    source = socket.inet_ntoa(data[12:16])
    if data[12] in (0, 127) or data[12] >= 224:
        return "rx_drop_martian_source"
    if source.startswith("10.5.2."):
        return "rx_delivered"
    return "rx_drop_own_source" if source.startswith("10.5.1.") else "rx_drop_inner_source"


def randomly(dice: random.Random, whole: bytes) -> bytes:
    """A datagram of one of several sorts of nonsense, from noise to a packet with a single bit turned."""
    sort = dice.randrange(5)
    if sort == 0:
        return dice.randbytes(dice.randrange(0, 1600))
    if sort == 1:
        return bytes([dice.choice((0x45, 0x46, 0x4F, 0x60))]) + dice.randbytes(dice.randrange(0, 200))
    data = bytearray(whole)
    for _ in range(dice.randrange(1, 4)):
        bit = dice.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
    if sort == 2:
        return bytes(data[: dice.randrange(len(data) + 1)])
    if sort == 3:
        return bytes(data) + dice.randbytes(dice.randrange(1, 9))
    return bytes(data)


def test_ten_thousand_random_datagrams(scene):
    """Each ends in the very counter that the oracle names, and only whole packets come out of flannel0."""
    dice = random.Random(8285)  # noqa: S311  (not for secrets)
    whole = good(scene, fragment=packets.DONT_FRAGMENT)
    expected: dict[str, int] = {}
    for start in range(0, RANDOM_DATAGRAMS, BURST):
        burst = [randomly(dice, whole) for _ in range(BURST)]
        scene.send(*burst)
        for data in burst:
            expected[fate(data)] = expected.get(fate(data), 0) + 1
        expected["rx_received"] = start + BURST
        scene.tally.await_grown("rx", expected)
    wanted = {"rx_received", "rx_delivered", *(f"rx_{wrong}" for wrong in WRONGS)}
    assert wanted <= expected.keys(), "every cause, and some packets that came through"
    law = scene.overlay.settle(scene.a)["law"]
    assert (law["rx"]["unexplained"], law["tx"]["unexplained"]) == (0, 0)
