"""Packets of a node whose kernel carries the overlay itself, over virtual links that leave them unfinished.

Their checksums are the pseudo-header's sum only, and super-packets come in one datagram. Host b runs a daemon. On host
a such a kernel is played, by a TUN for connections and by hand for single datagrams.
"""

import json
import random
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import packets
import pytest
from counted import Tally
from kernel_node import KernelNode
from packets import DONT_FRAGMENT, TCP, UDP
from raw_packets import receive
from superpackets import ACK, GSO_UDP_L4, NEEDS_CSUM, PSH, UDP_TOO, Segment, cut, injector, with_checksum

from bench.lab.daemon import PORT, Overlay
from bench.lab.topology import Host, Lab

DEADLINE_S = 20
DICE = random.Random(7)  # noqa: S311  (not for secrets)
ETHERNET_BYTES, OUTER_BYTES = 14, 28


@dataclass
class Scene:
    overlay: Overlay
    a: Host
    b: Host
    tally: Tally
    takes_super: bool
    """Whether flannel0 is given super-packets of TCP."""

    def segment(self, size: int, protocol: int) -> Segment:
        """Of a flow from pod to pod."""
        ends = (self.a.pod_address, 40000, self.b.pod_address, 9010)
        return Segment(ends, DICE.randbytes(size), protocol, flags=ACK | PSH, ip={"fragment": DONT_FRAGMENT})


@pytest.fixture(scope="module", params=["", "tcp-coalesce=off"], ids=["default", "no-super-packets"])
def scene(able, request) -> Iterator[Scene]:
    with Lab(ipv6=True) as lab, Overlay(lab) as overlay:
        a, b = lab.hosts
        overlay.launch(b, *(["--offloads", request.param] if request.param else []))
        overlay.await_ready(b)
        yield Scene(overlay, a, b, Tally(overlay, b), not request.param)
        overlay.stop_all()


@pytest.fixture
def peer(scene) -> Iterator[socket.socket]:
    """Sends by hand, where a daemon would."""
    with packets.udp_socket(scene.a.namespace, scene.a.address, PORT) as made:
        yield made


def carried(source: Host, target: Host, address: str, data: bytes) -> bytes:
    """What arrives over a TCP connection between their pods."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        target.pod.call(lambda: socket.create_server((address, 5300), family=family)) as server,
        source.pod.call(lambda: socket.create_connection((address, 5300), DEADLINE_S)) as client,
    ):
        server.settimeout(DEADLINE_S)
        program, _ = server.accept()
        program.settimeout(DEADLINE_S)
        with program:
            found = b""
            for at in range(0, len(data), 1 << 16):
                client.sendall(data[at : at + (1 << 16)])
                while len(found) < min(at + (1 << 16), len(data)):
                    found += program.recv(1 << 20)
    return found


@pytest.mark.parametrize("address", ["pod_address", "pod_address6"], ids=["ipv4", "ipv6"])
def test_tcp_between_such_a_node_and_ours(scene, address):
    """Each way: it sends unfinished packets and super-packets, we send what any node understands."""
    data = DICE.randbytes(1 << 20)
    scene.tally.mark()  # before the node: the connections of the test before may still send a last word again
    with KernelNode(scene.overlay.lab, scene.a, scene.b) as node:
        assert carried(scene.a, scene.b, getattr(scene.b, address), data) == data
        assert carried(scene.b, scene.a, getattr(scene.a, address), data) == data
        assert node.sent["super"] > 0  # how many depends on how busy the machine is
        # On a busy machine a datagram may be lost on the way; TCP sends it again.
        found = counted(scene.tally)
        assert all(0.5 * sent <= found[what] <= sent for what, sent in node.sent.items()), (found, node.sent)
    dropped = {name for name in scene.tally.grown("rx_drop") if name != "rx_drop_martian_source"}
    assert not dropped  # the kernel's own multicast, which comes from no address


def counted(tally: Tally) -> dict[str, int]:
    grown = tally.grown("rx")
    return {"partial": grown["rx_partial_checksum"], "super": grown["rx_super_packets"]}


def test_a_super_packet_reaches_the_pod_as_segments_that_fit(scene, peer):
    """A packet socket in the pod is given what the kernel has: one super-packet, or the segments that were cut."""
    packet = with_checksum(scene.segment(20000, TCP).packet(), finished=False)
    size = scene.b.overlay_mtu - 40
    with packets.sniffer(scene.b.pod, "eth0") as seen:
        peer.sendto(packet, (scene.b.address, PORT))
        expected = [packet] if scene.takes_super else cut(packet, size)
        assert receive(seen, len(expected), DEADLINE_S) == [packets.forwarded(it) for it in expected]


@pytest.mark.parametrize("protocol", [UDP, TCP], ids=["udp", "tcp"])
def test_what_is_neither_right_nor_unfinished_passes_as_it_came(scene, peer, protocol):
    right = scene.segment(500, protocol).packet()
    wrong = right[:-1] + bytes([right[-1] ^ 1])
    scene.tally.mark()
    with packets.sniffer(scene.b.pod, "eth0") as seen:
        for packet in (right, wrong):
            peer.sendto(packet, (scene.b.address, PORT))
        assert receive(seen, 2, DEADLINE_S) == [packets.forwarded(right), packets.forwarded(wrong)]
    scene.tally.await_grown("rx", {"rx_received": 2, "rx_delivered": 2})


def test_a_udp_datagram_arrives(scene, peer):
    one = scene.segment(500, UDP)
    scene.tally.mark()
    with packets.udp_socket(scene.b.pod, scene.b.pod_address, 9010) as program:
        program.settimeout(DEADLINE_S)
        peer.sendto(with_checksum(one.packet(), finished=False), (scene.b.address, PORT))
        assert program.recv(65535) == one.data
    scene.tally.await_grown("rx", {"rx_received": 1, "rx_delivered": 1, "rx_partial_checksum": 1})


def test_udp_datagrams_in_one_arrive(scene):
    """Where the kernel tells where each ends. One that knows no super-packets of UDP cannot be sent any."""
    several = scene.segment(10 * 1000 + 10, UDP)
    packet = with_checksum(several.packet(), finished=False)
    if not UDP_TOO:
        with pytest.raises(OSError, match="Invalid argument"):
            inject(scene, packet, 1000)
        return
    scene.tally.mark()
    with packets.udp_socket(scene.b.pod, scene.b.pod_address, 9010) as program:
        program.settimeout(DEADLINE_S)
        inject(scene, packet, 1000)
        for at in range(0, len(several.data), 1000):
            assert program.recv(65535) == several.data[at : at + 1000]
    scene.tally.await_grown(
        "rx", {"rx_received": 1, "rx_delivered": 1, "rx_partial_checksum": 1, "rx_super_packets": 1}
    )


def test_udp_datagrams_in_one_without_a_word_where_they_end_are_dropped(scene, peer):
    packet = with_checksum(scene.segment(5000, UDP).packet(), finished=False)
    scene.tally.mark()
    peer.sendto(packet, (scene.b.address, PORT))
    scene.tally.await_grown("rx", {"rx_received": 1, "rx_partial_checksum": 1, "rx_drop_udp_super_packet": 1})


def inject(scene: Scene, packet: bytes, size: int) -> None:
    """Sends a super-packet of UDP as a kernel's tunnel does: with the size of the datagrams inside."""
    header = struct.pack("!HHHH", PORT, PORT, 8 + len(packet), 0)
    outer = packets.ipv4(scene.a.address, scene.b.address, header + packet, protocol=UDP)
    frame = hardware(scene.b) + hardware(scene.a) + struct.pack("!H", packets.ETH_P_IP)
    start = ETHERNET_BYTES + OUTER_BYTES - 8
    virtio = struct.pack("=BBHHHH", NEEDS_CSUM, GSO_UDP_L4, ETHERNET_BYTES + OUTER_BYTES, size, start, 6)
    with injector(scene.a.namespace, "eth0") as device:
        device.send(virtio + frame + with_checksum(outer, finished=False))


def hardware(host: Host) -> bytes:
    """The address of its eth0."""
    [link] = json.loads(host.namespace.run("ip", "-json", "link", "show", "dev", "eth0"))
    return bytes.fromhex(link["address"].replace(":", ""))
