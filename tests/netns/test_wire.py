"""The wire: one datagram is one raw IPv4 packet, nothing added, seen by a plain UDP socket in the place of a peer."""

import socket
import struct
from dataclasses import dataclass

import packets
import pytest
from raw_packets import receive

from bench.lab.daemon import PORT, Overlay
from bench.lab.topology import Host, Lab

SIZES = [20, 21, 28, 67, 576, 1471, 1472]
DEADLINE_S = 5
NOP = b"\x01\x01\x01\x00"
SHAPES = {
    "plain": {},
    "dscp-and-ecn": {"tos": 0xBB},
    "dont-fragment": {"fragment": packets.DONT_FRAGMENT, "identification": 0},
    "first-fragment": {"fragment": packets.MORE_FRAGMENTS, "identification": 77},
    "last-fragment": {"fragment": 100, "identification": 78},
    "options": {"options": NOP},
    "ttl-2": {"ttl": 2},
    "ttl-255": {"ttl": 255},
}


@dataclass
class Wire:
    """Host a runs a daemon. On host b only `peer` listens, where flanneld would."""

    a: Host
    b: Host
    peer: socket.socket

    def datagrams(self, count):
        """The next ones, with their senders; fails when one comes too many."""
        self.peer.settimeout(DEADLINE_S)
        found = [self.peer.recvfrom(65535) for _ in range(count)]
        self.peer.settimeout(0)
        with pytest.raises(BlockingIOError):
            self.peer.recvfrom(65535)
        return found

    def expect(self, *expected):
        """Exactly these packets have left, in this order, each in a datagram from a's address and port to b's."""
        found = self.datagrams(len(expected))
        assert {sender for _, sender in found} == {(self.a.address, PORT)}
        assert [data.hex() for data, _ in found] == [data.hex() for data in expected]


@pytest.fixture(scope="module")
def wire(able):
    with Lab() as lab, Overlay(lab) as overlay:
        a, b = lab.hosts
        overlay.launch(a)
        overlay.await_ready(a)
        with packets.udp_socket(b.namespace, b.address, PORT) as peer:
            yield Wire(a, b, peer)
        overlay.stop_all()


def filled(size):
    """That many bytes, each different from its neighbours."""
    return (bytes(range(1, 252)) * (size // 251 + 1))[:size]


def sample(source, destination, size=100, **fields):
    return packets.ipv4(source, destination, filled(size - 20), **fields)


@pytest.mark.parametrize("size", SIZES)
def test_a_pods_packet_leaves_as_the_kernel_forwards_it(wire, size):
    packet = sample(wire.a.pod_address, wire.b.pod_address, size)
    with packets.raw_socket(wire.a.pod) as pod:
        pod.sendto(packet, (wire.b.pod_address, 0))
    wire.expect(packets.forwarded(packet))


@pytest.mark.parametrize("size", SIZES)
def test_a_hosts_packet_leaves_untouched(wire, size):
    packet = sample(wire.a.gateway, wire.b.pod_address, size)
    with packets.raw_socket(wire.a.namespace) as host:
        host.sendto(packet, (wire.b.pod_address, 0))
    wire.expect(packet)


@pytest.mark.parametrize("fields", SHAPES.values(), ids=SHAPES)
def test_nothing_in_a_header_is_changed(wire, fields):
    """Put straight into flannel0, so that no kernel has an opinion."""
    packet = sample(wire.a.pod_address, wire.b.pod_address, **fields)
    with packets.sniffer(wire.a.namespace, "flannel0") as device:
        device.sendto(packet, ("flannel0", packets.ETH_P_IP))
    wire.expect(packet)


@pytest.mark.parametrize("ttl", [0, 1])
def test_a_ttl_at_its_end_is_the_receivers_business(wire, ttl):
    test_nothing_in_a_header_is_changed(wire, {"ttl": ttl})


def test_a_burst_leaves_in_order_one_packet_a_datagram(wire):
    burst = [sample(wire.a.pod_address, wire.b.pod_address, 100 + i, identification=i) for i in range(100)]
    with packets.sniffer(wire.a.namespace, "flannel0") as device:
        for packet in burst:
            device.sendto(packet, ("flannel0", packets.ETH_P_IP))
    wire.expect(*burst)


@pytest.mark.parametrize("size", [0, 1, 100, 1443, 1444])
@pytest.mark.parametrize("where", ["pod", "host"])
def test_checksums_of_local_senders_are_finished(wire, where, size):
    """Their kernel leaves the UDP checksum to the device; nobody behind a UDP tunnel would ever finish it."""
    namespace, address = (wire.a.pod, wire.a.pod_address) if where == "pod" else (wire.a.namespace, wire.a.gateway)
    data = filled(size)
    with packets.udp_socket(namespace, address, 4000) as sender:
        sender.sendto(data, (wire.b.pod_address, 4001))
    [(packet, sender)] = wire.datagrams(1)
    assert packets.is_sound(packet)
    assert packet[20:26] == struct.pack("!HHH", 4000, 4001, 8 + size)
    assert packet[26:28] != bytes(2), "a zero would say that there is none"
    assert (packet[28:], sender) == (data, (wire.a.address, PORT))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("port", [PORT, 0, 53], ids=["our-port", "any-port", "low-port"])
def test_a_peers_packet_reaches_the_host_untouched(wire, size, port):
    packet = sample(wire.b.pod_address, wire.a.gateway, size)
    with packets.sniffer(wire.a.namespace, "flannel0") as seen:
        send_as_peer(wire, port, packet)
        assert receive(seen, 1, DEADLINE_S) == [packet]


@pytest.mark.parametrize("size", SIZES)
def test_a_peers_packet_reaches_the_pod_as_the_kernel_forwards_it(wire, size):
    packet = sample(wire.b.pod_address, wire.a.pod_address, size)
    with packets.sniffer(wire.a.pod, "eth0") as seen:
        send_as_peer(wire, 0, packet)
        assert receive(seen, 1, DEADLINE_S) == [packets.forwarded(packet)]


@pytest.mark.parametrize("fields", SHAPES.values(), ids=SHAPES)
def test_every_shape_reaches_the_pod(wire, fields):
    packet = sample(wire.b.pod_address, wire.a.pod_address, **fields)
    with packets.sniffer(wire.a.pod, "eth0") as seen:
        send_as_peer(wire, 0, packet)
        assert receive(seen, 1, DEADLINE_S) == [packets.forwarded(packet)]


def test_a_burst_reaches_the_pod_in_order(wire):
    burst = [sample(wire.b.pod_address, wire.a.pod_address, 100 + i, identification=i) for i in range(100)]
    with packets.sniffer(wire.a.pod, "eth0") as seen:
        send_as_peer(wire, PORT, *burst)
        assert receive(seen, 100, DEADLINE_S) == [packets.forwarded(packet) for packet in burst]


def test_a_udp_program_understands_a_hand_made_datagram(wire):
    data = filled(1444)
    with packets.udp_socket(wire.a.pod, wire.a.pod_address, 4002) as program:
        send_as_peer(wire, 0, packets.udp((wire.b.pod_address, 4003), (wire.a.pod_address, 4002), data))
        program.settimeout(DEADLINE_S)
        assert program.recvfrom(65535) == (data, (wire.b.pod_address, 4003))


def send_as_peer(wire, port, *burst):
    target = (wire.a.address, PORT)
    if port == PORT:
        for packet in burst:
            wire.peer.sendto(packet, target)
        return
    with packets.udp_socket(wire.b.namespace, wire.b.address, port) as other:
        for packet in burst:
            other.sendto(packet, target)
