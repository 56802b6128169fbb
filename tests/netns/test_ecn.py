"""Explicit congestion notification through the tunnel, seen by a plain UDP socket in a peer's place (RFC 6040)."""

import socket
import struct
from dataclasses import dataclass

import packets
import pytest
from counted import Tally
from raw_packets import receive

from bench.lab import traffic
from bench.lab.daemon import PORT, Overlay
from bench.lab.topology import Host, Lab

DEADLINE_S = 5
NOT_ECT, ECT1, ECT0, CE = range(4)
EF = 0xB8
SO_UDP_SEGMENT = 103


@dataclass
class Scene:
    """Host a runs a daemon. On host b only `peer` sends and listens, where a daemon would."""

    a: Host
    b: Host
    peer: socket.socket
    tally: Tally
    copies_dscp: bool

    def datagram(self) -> tuple[bytes, int]:
        """The next one with the TOS of its outer header."""
        data, control, _, _ = self.peer.recvmsg(65535, 64)
        [tos] = [value[0] for level, kind, value in control if (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS)]
        return data, tos


@pytest.fixture(scope="module", params=["", "--copy-dscp"], ids=["as-flannel", "copy-dscp"])
def scene(able, request):
    with Lab() as lab, Overlay(lab, *request.param.split()) as overlay:
        a, b = lab.hosts
        overlay.launch(a)
        overlay.await_ready(a)
        with packets.udp_socket(b.namespace, b.address, PORT) as peer:
            peer.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            peer.settimeout(DEADLINE_S)
            yield Scene(a, b, peer, Tally(overlay, a), bool(request.param))
        overlay.stop_all()


@pytest.mark.parametrize("dscp", [0, EF])
@pytest.mark.parametrize("ecn", [NOT_ECT, ECT1, ECT0, CE])
def test_a_datagram_leaves_with_its_packets_ecn(scene, ecn, dscp):
    """Straight from flannel0, and as a program sends it in one piece with UDP_SEGMENT."""
    a, b = scene.a, scene.b
    packet = packets.ipv4(a.pod_address, b.pod_address, b"marked", tos=dscp | ecn)
    expected = dscp | ecn if scene.copies_dscp else ecn
    with packets.sniffer(a.namespace, "flannel0") as device:
        device.sendto(packet, ("flannel0", packets.ETH_P_IP))
        assert scene.datagram() == (packet, expected)
    with packets.udp_socket(a.pod, a.pod_address) as program:
        program.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp | ecn)
        segment = [(socket.SOL_UDP, SO_UDP_SEGMENT, struct.pack("=H", 1000))]
        program.sendmsg([bytes(5000)], segment, 0, (b.pod_address, 4001))
        for _ in range(5):
            data, tos = scene.datagram()
            assert (len(data), data[1], tos) == (1028, dscp | ecn, expected)


@pytest.mark.parametrize("inner", [ECT1, ECT0, CE])
@pytest.mark.parametrize("outer", [NOT_ECT, ECT0, CE])
def test_a_mark_made_on_the_way_arrives(scene, inner, outer):
    packet = packets.ipv4(scene.b.pod_address, scene.a.pod_address, b"marked", tos=EF | inner)
    became = CE if CE in (inner, outer) else inner
    scene.peer.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, outer)
    with packets.sniffer(scene.a.pod, "eth0") as seen:
        scene.peer.sendto(packet, (scene.a.address, PORT))
        marked = packets.sealed(packet[:1] + bytes([EF | became]) + packet[2:])
        assert receive(seen, 1, DEADLINE_S) == [packets.forwarded(marked)]


def test_a_mark_that_nobody_would_see_drops_the_packet(scene):
    packet = packets.ipv4(scene.b.pod_address, scene.a.pod_address, b"not capable", tos=EF)
    honest = packets.ipv4(scene.b.pod_address, scene.a.pod_address, b"the next one")
    scene.tally.mark()
    with packets.sniffer(scene.a.pod, "eth0") as seen:
        for outer, data in ((CE, packet), (NOT_ECT, honest)):
            scene.peer.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, outer)
            scene.peer.sendto(data, (scene.a.address, PORT))
        assert receive(seen, 1, DEADLINE_S) == [packets.forwarded(honest)]
    scene.tally.await_grown("rx", {"rx_received": 2, "rx_delivered": 1, "rx_drop_ecn": 1})


def test_tcp_slows_down_for_a_mark_on_the_underlay(make_overlay):
    """Both ends agree on ECN; a router of the underlay marks each datagram that may be marked; the receiver sees it."""
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    for host in (a, b):
        host.pod.sysctl("ipv4/tcp_ecn", "1")
    rules = "add table ip t; add chain ip t c { type filter hook prerouting priority -300; }; add rule ip t c "
    b.namespace.run("nft", rules + f"udp dport {PORT} ip ecn ect0 ip ecn set ce")
    before = marked(b)
    found = traffic.tcp(traffic.Way(a.pod, b.pod, b.pod_address), seconds=1)
    assert found.received_bytes > 0
    assert marked(b) - before > 10
    dropped = {it["name"]: it["value"] for it in overlay.status(b)["counters"]}["rx_drop_ecn"]
    assert dropped == 0


def marked(host: Host) -> int:
    """Packets marked CE that the pod's kernel has seen."""
    seen = host.pod.run("cat", "/proc/net/netstat").splitlines()
    lines = [line.split() for line in seen if line.startswith("IpExt:")]
    return int(dict(zip(*lines, strict=True))["InCEPkts"])
