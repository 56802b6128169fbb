"""Packets reach a pod as their sender sent them: what packet sockets and filters see there is no artefact of ours.

A plain UDP socket stands in a peer's place. The daemon is held (SIGSTOP) while a burst is sent, so that it takes it as
one batch and could join what is in it.
"""

import random
import socket
from dataclasses import dataclass

import linux
import packets
import pytest
from counted import Tally
from packets import DONT_FRAGMENT, TCP, UDP
from raw_packets import receive
from running import held
from superpackets import Segment

from bench.lab.daemon import PORT, Overlay
from bench.lab.topology import Host, Lab

DEADLINE_S = 10
SWITCHES = ("tso", "uso", "tcp-coalesce", "udp-coalesce", "udp-segment", "udp-gro")


@dataclass
class Scene:
    """Host b runs a daemon. On host a only `peer` sends, where a daemon would."""

    overlay: Overlay
    a: Host
    b: Host
    peer: socket.socket
    tally: Tally

    def flow(self, count: int, size: int, protocol: int = UDP) -> list[bytes]:
        """So many packets of one flow, each with `size` bytes of data, that a kernel's GRO could join."""
        dice = random.Random(size)  # noqa: S311  (not for secrets)
        ends = (self.a.pod_address, 40000, self.b.pod_address, 9010)
        return [
            Segment(
                ends, dice.randbytes(size), protocol, sequence=1 + i * size, ip={"fragment": DONT_FRAGMENT}
            ).packet()
            for i in range(count)
        ]

    def send(self, burst: list[bytes]) -> None:
        with held(self.overlay.process(self.b)):
            for packet in burst:
                self.peer.sendto(packet, (self.b.address, PORT))


@pytest.fixture(scope="module")
def scene(able):
    with Lab() as lab, Overlay(lab) as overlay:
        a, b = lab.hosts
        overlay.launch(b)
        overlay.await_ready(b)
        with packets.udp_socket(a.namespace, a.address, PORT) as peer:
            yield Scene(overlay, a, b, peer, Tally(overlay, b))
        overlay.stop_all()


def seen_in_the_pod(scene: Scene, burst: list[bytes]) -> list[bytes]:
    """What a packet socket in the pod is given: exactly as the pod's kernel has it, joined or not."""
    with packets.sniffer(scene.b.pod, "eth0") as seen:
        scene.send(burst)
        found = receive(seen, len(burst), DEADLINE_S)
        return found + receive(seen, 1, 0)


@pytest.mark.parametrize("size", [200, 1400])
def test_udp_datagrams_that_arrive_together_are_delivered_one_by_one(scene, size):
    burst = scene.flow(5, size)
    assert seen_in_the_pod(scene, burst) == [packets.forwarded(packet) for packet in burst]


def test_a_rule_for_long_packets_drops_no_short_ones(scene):
    """A host's filter sees datagrams of the length that they were sent in."""
    rules = "add table ip t; add chain ip t c { type filter hook forward priority 0; }; add rule ip t c "
    scene.b.namespace.run("nft", rules + "udp dport 9010 meta length > 1500 drop")
    try:
        with packets.udp_socket(scene.b.pod, scene.b.pod_address, 9010) as program:
            scene.send(scene.flow(60, 1400))
            program.settimeout(DEADLINE_S)
            assert [len(program.recv(65535)) for _ in range(60)] == [1400] * 60
    finally:
        scene.b.namespace.run("nft", "delete table ip t")


@pytest.mark.parametrize("protocol", [UDP, TCP], ids=["udp", "tcp"])
@pytest.mark.parametrize("size", [1, 300, 1400])
def test_a_packet_socket_finds_the_checksum_that_was_sent(scene, protocol, size):
    """A DHCP client verifies it by itself, and so does a TCP stack of a program's own."""
    burst = scene.flow(1, size, protocol)
    [found] = seen_in_the_pod(scene, burst)
    assert packets.is_sound(found)
    assert found == packets.forwarded(burst[0])


def test_each_offload_can_be_switched(make_overlay):
    """With all off, TCP and UDP pass as they do otherwise, and `status` names nothing but checksums."""
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    everything = set(overlay_offloads(overlay, a, "--offloads", "udp-coalesce=on"))
    assert everything == {"csum", *SWITCHES} - (set() if linux.at_least(6, 2) else {"uso", "udp-coalesce"})
    assert overlay_offloads(overlay, b, "--offloads", ",".join(f"{name}=off" for name in SWITCHES)) == ["csum"]
    data = random.Random(1).randbytes(1 << 20)  # noqa: S311
    for source, target in ((a, b), (b, a)):
        assert carried(source, target, data) == data
    tally = Tally(overlay, b).read()
    assert tally["rx_writes"] == tally["rx_delivered"]
    assert tally["tx_messages"] == tally["tx_datagrams"]
    assert tally["tx_reads"] == tally["tx_received"]


def overlay_offloads(overlay: Overlay, host: Host, *arguments: str) -> list[str]:
    """Starts a daemon; the offloads it says it uses."""
    overlay.launch(host, *arguments)
    overlay.await_ready(host)
    found: list[str] = overlay.status(host)["offloads"]
    return found


def carried(source: Host, target: Host, data: bytes) -> bytes:
    """What arrives over a TCP connection between their pods."""
    with (
        target.pod.call(lambda: socket.create_server((target.pod_address, 5300))) as server,
        source.pod.call(lambda: socket.create_connection((target.pod_address, 5300), DEADLINE_S)) as client,
    ):
        server.settimeout(DEADLINE_S)
        program, _ = server.accept()
        program.settimeout(DEADLINE_S)
        found = b""
        with program:
            for at in range(0, len(data), 1 << 15):  # less than the socket holds: nobody reads meanwhile
                client.sendall(data[at : at + (1 << 15)])
                while len(found) < at + len(data[at : at + (1 << 15)]):
                    found += program.recv(1 << 20)
    return found
