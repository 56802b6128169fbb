"""Who may send what: each kind of spoofed datagram against each --source-check, counted by its cause, never delivered.

Host a runs the daemon. Hosts b and c are its peers by address alone; a stranger sends from an address that is no
node's. Nothing is waited for in vain: an honest packet follows the spoofed one, and whatever came before it has been
let in or has not.
"""

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address

import packets
import pytest
from counted import Tally
from raw_packets import receive

from bench.lab.daemon import PORT, Overlay
from bench.lab.topology import Host, Lab
from udpbackend.model import can_be_a_hosts

STRANGER = "192.168.77.99"
PEERS = {"b": "192.168.77.2", "c": "192.168.77.3", "stranger": STRANGER}
LET_IN = "rx_delivered"
UNKNOWN, INNER = "rx_drop_unknown_peer", "rx_drop_inner_source"
OWN, MARTIAN = "rx_drop_own_source", "rx_drop_martian_source"

Fates = tuple[str, str, str]
"""With --source-check=subnet, peer and off."""

CASES: dict[str, tuple[str, str, Fates]] = {
    # the sender, the inner source, its fate
    "honest-pod": ("b", "10.5.2.2", (LET_IN, LET_IN, LET_IN)),
    "honest-host": ("b", "10.5.2.0", (LET_IN, LET_IN, LET_IN)),
    "honest-last": ("b", "10.5.2.255", (LET_IN, LET_IN, LET_IN)),
    "honest-other": ("c", "10.5.3.2", (LET_IN, LET_IN, LET_IN)),
    "another-peers-subnet": ("b", "10.5.3.2", (INNER, LET_IN, LET_IN)),
    "nobodys-subnet": ("b", "10.5.200.1", (INNER, LET_IN, LET_IN)),
    "outside-the-network": ("b", "172.16.0.1", (INNER, LET_IN, LET_IN)),
    "a-peers-own-address": ("b", "192.168.77.2", (INNER, LET_IN, LET_IN)),
    "our-pod": ("b", "10.5.1.2", (OWN, OWN, OWN)),
    "our-unused-address": ("b", "10.5.1.77", (OWN, OWN, OWN)),
    "our-bridge": ("b", "10.5.1.1", (OWN, OWN, OWN)),
    "our-flannel0": ("b", "10.5.1.0", (OWN, OWN, OWN)),
    "our-eth0": ("b", "192.168.77.1", (OWN, OWN, OWN)),
    "our-second-address": ("b", "172.17.9.1", (OWN, OWN, OWN)),
    "loopback": ("b", "127.0.0.1", (MARTIAN, MARTIAN, MARTIAN)),
    "loopback-last": ("b", "127.255.255.255", (MARTIAN, MARTIAN, MARTIAN)),
    "unspecified": ("b", "0.0.0.0", (MARTIAN, MARTIAN, MARTIAN)),
    "this-network": ("b", "0.1.2.3", (MARTIAN, MARTIAN, MARTIAN)),
    "multicast": ("b", "224.0.0.1", (MARTIAN, MARTIAN, MARTIAN)),
    "multicast-last": ("b", "239.255.255.255", (MARTIAN, MARTIAN, MARTIAN)),
    "class-e": ("b", "240.0.0.1", (INNER, LET_IN, LET_IN)),
    "class-e-last": ("b", "255.255.255.254", (INNER, LET_IN, LET_IN)),
    "broadcast": ("b", "255.255.255.255", (MARTIAN, MARTIAN, MARTIAN)),
    "stranger": ("stranger", "10.5.2.2", (UNKNOWN, UNKNOWN, LET_IN)),
    "stranger-outside": ("stranger", "172.16.0.1", (UNKNOWN, UNKNOWN, LET_IN)),
    "stranger-as-us": ("stranger", "10.5.1.2", (UNKNOWN, UNKNOWN, OWN)),
    "stranger-martian": ("stranger", "127.0.0.1", (UNKNOWN, UNKNOWN, MARTIAN)),
}


@dataclass
class Scene:
    a: Host
    mode: int
    tally: Tally
    sockets: dict[str, socket.socket]

    def send(self, sender: str, packet: bytes) -> None:
        self.sockets[sender].sendto(packet, (self.a.address, PORT))


@pytest.fixture(scope="module", params=["subnet", "peer", "off"])
def scene(able, request):
    with Lab(3) as lab, Overlay(lab, f"--source-check={request.param}") as overlay:
        a, b, c = lab.hosts
        a.namespace.ip("address add 172.17.9.1/32 dev lo")
        a.namespace.sysctl("ipv4/icmp_ratelimit", "0")  # or silence would prove nothing
        b.namespace.ip(f"address add {STRANGER}/24 dev eth0")
        overlay.launch(a)
        overlay.await_ready(a)
        with (
            packets.udp_socket(b.namespace, PEERS["b"]) as from_b,
            packets.udp_socket(c.namespace, PEERS["c"]) as from_c,
            packets.udp_socket(b.namespace, STRANGER) as from_stranger,
        ):
            sockets = {"b": from_b, "c": from_c, "stranger": from_stranger}
            yield Scene(a, ["subnet", "peer", "off"].index(request.param), Tally(overlay, a), sockets)
        overlay.stop_all()


@pytest.mark.parametrize(("sender", "source", "fates"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("target", ["pod", "host"])
def test_fate(scene, target, sender, source, fates):
    """To the pod, which the kernel forwards to, and to the host itself, where only we stand before its programs."""
    a, fate = scene.a, fates[scene.mode]
    address, namespace, device = (
        (a.pod_address, a.pod, "eth0") if target == "pod" else (a.gateway, a.namespace, "flannel0")
    )
    packet = packets.ipv4(source, address, b"spoofed?" * 10)
    honest = packets.ipv4("10.5.2.2", address, b"the honest one")
    scene.tally.mark()
    with packets.sniffer(namespace, device) as seen:
        scene.send(sender, packet)
        scene.tally.await_grown("rx", {"rx_received": 1, fate: 1})
        scene.send("b", honest)
        expected = [packet, honest] if fate == LET_IN else [honest]
        found = receive(seen, len(expected), 5)
    assert found == [packets.forwarded(it) if target == "pod" else it for it in expected]


def test_python_and_c_agree_on_who_is_no_host():
    """Registries and interface choice take the addresses that the dataplane takes, and no others."""
    fates = {source: fates for sender, source, fates in CASES.values() if sender == "b"}
    assert {it for it in fates if not can_be_a_hosts(int(IPv4Address(it)))} == {
        it for it, (fate, *_) in fates.items() if fate == MARTIAN
    }


def test_nothing_spoofed_is_answered(scene):
    """A refusal stays silent: an answer would go to whoever was named as the source."""
    spoofed = [(sender, source) for sender, source, fates in CASES.values() if fates[scene.mode] != LET_IN]
    scene.tally.mark()  # the kernel's answers to earlier tests are out: it answers before it takes the next packet
    for sender, source in spoofed:
        scene.send(sender, packets.udp((source, 4000), (scene.a.gateway, 4001), b"nobody listens here"))
    scene.tally.await_grown("rx_received", {"rx_received": len(spoofed)})
    assert scene.tally.grown("tx") == {}
    honest = packets.udp(("10.5.2.2", 4000), (scene.a.gateway, 4001), b"nobody listens here")
    scene.send("b", honest)
    scene.tally.await_grown("tx_", {"tx_received": 1, "tx_delivered": 1, "tx_datagrams": 1})
