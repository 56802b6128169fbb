"""What is said of a path and is not so, or not so any more, or only for some packets.

A stranger's ICMP that claims a narrow path, a path that has become wide again, and a path that is narrow only for
packets from the daemon's own port.
"""

import struct

import packets
import pytest
from paths import DEADLINE_S, LONGEST, known_to, learn, running, udp_pair

from bench.lab import traffic
from bench.lab.daemon import PORT
from bench.lab.topology import Lab
from bench.lab.wait import until

ASKED_AGAIN_S = 10
"""The kernel is asked every few seconds; the machine may be busy."""
ECHO6_BYTES, LEAST6_BYTES = 48, 1280
FORGED_BYTES, LEAST_BYTES = 1000, 1280
"""What the stranger says; what a path between nodes has at the least."""


@pytest.fixture
def pair(able):
    """Two hosts on one link of 1500 bytes, with IPv6 inside. Fresh each time: kernels remember for ten minutes."""
    with running(Lab(ipv6=True)) as scene:
        yield scene


def forge(scene, mtu):
    """Fragmentation needed, from anywhere, until a believes it: addresses and fixed ports are all one has to know."""
    a, b = scene.a.address, scene.b.address
    quoted = packets.udp((a, PORT), (b, PORT), bytes(LONGEST), fragment=packets.DONT_FRAGMENT)[:28]
    claim = packets.icmp("203.0.113.1", a, (3, 4), struct.pack("!HH", 0, mtu) + quoted)
    with packets.raw_socket(scene.b.namespace) as stranger:

        def believed():
            stranger.sendto(claim, (a, 0))
            return known_to(scene.a.namespace, b) == mtu

        until(believed, DEADLINE_S, "the kernel does not believe the forged ICMP")


def test_a_strangers_icmp_does_not_end_ipv6(pair):
    forge(pair, FORGED_BYTES)
    found = traffic.ping(pair.a.pod, pair.b.pod_address6, size=LEAST6_BYTES - ECHO6_BYTES, dont_fragment=True)
    assert found.received == found.sent
    way = traffic.Way(pair.a.pod, pair.b.pod, pair.b.pod_address6)
    assert traffic.tcp(way, seconds=2).received_bytes > 1_000_000


def test_a_path_mtu_is_not_believed_below_what_is_plausible(pair):
    """Packets of up to 1280 outer bytes go on as before; longer ones are told of 1280."""
    forge(pair, FORGED_BYTES)
    room = LEAST_BYTES - 28
    fits = traffic.ping(pair.a.pod, pair.b.pod_address, size=room - 28, dont_fragment=True)
    assert fits.received == fits.sent
    with udp_pair(pair) as (sender, receiver):
        for size in (FORGED_BYTES, LONGEST - 28):
            data = bytes([size % 251]) * size
            sender.send(data)
            assert receiver.recv(65535) == data
    traffic.ping(pair.a.pod, pair.b.pod_address, size=LONGEST - 28, dont_fragment=True, count=1)
    assert known_to(pair.a.pod, pair.b.pod_address) == room
    assert pair.path_mtu() == LEAST_BYTES
    assert pair.tally.grown("tx_path_mtu")["tx_path_mtu_doubted"] >= 1


def test_a_path_that_is_wide_again(pair):
    """By hand, so that the kernel knows at once: it is asked anew, and packets leave whole again."""
    with udp_pair(pair) as (sender, _):
        pair.a.namespace.ip("link set eth0 mtu 1400")
        learn(pair, sender, 1400)
        pair.a.namespace.ip("link set eth0 mtu 1500")
        learn(pair, sender, None, ASKED_AGAIN_S)
        pair.tally.mark()
        sender.send(bytes(LONGEST - 28))
        pair.tally.await_grown("tx", {"tx_received": 1, "tx_delivered": 1, "tx_datagrams": 1})


def test_a_path_that_the_kernel_has_forgotten(pair):
    """No link changes here, no route: only what the kernel has learned is gone."""
    forge(pair, 1300)
    with udp_pair(pair) as (sender, _):
        learn(pair, sender, 1300)
        pair.a.namespace.ip("route flush cache")
        learn(pair, sender, None, ASKED_AGAIN_S)


@pytest.mark.parametrize("arguments", [(), ("--workers=2",)], ids=["loop", "workers"])
def test_a_rule_by_source_port(able, arguments):
    """The path that counts is the one of packets from our port; no other socket's."""
    with running(Lab(), *arguments) as scene:
        scene.a.namespace.ip(
            f"rule add ipproto udp sport {PORT} lookup 100",
            "route add 192.168.77.0/24 dev eth0 mtu 1300 table 100",
        )
        traffic.ping(scene.a.pod, scene.b.pod_address, size=LONGEST - 28, dont_fragment=True, count=1)
        assert known_to(scene.a.pod, scene.b.pod_address) == 1300 - 28
        assert scene.path_mtu() == 1300
        with udp_pair(scene) as (sender, receiver):
            sender.send(bytes(LONGEST - 28))
            assert len(receiver.recv(65535)) == LONGEST - 28
        found = traffic.tcp(traffic.Way(scene.a.pod, scene.b.pod, scene.b.pod_address), seconds=1)
        assert found.received_bytes > 1_000_000
