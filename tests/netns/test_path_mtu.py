"""A path narrower than the interface: senders learn its MTU, or their packets are cut; nothing vanishes without a word.

The outer datagrams have DF set, so a router in the way drops the first that is too long and says so to the host's
kernel. From the second on the daemon knows: an inner sender that set DF is told, the packets of others leave in pieces.
"""

from concurrent.futures import ThreadPoolExecutor

import packets
import pytest
from paths import DEADLINE_S, LONGEST, drain, known_to, learn, running, udp_pair
from raw_packets import receive

from bench.lab import traffic
from bench.lab.routed import RoutedLab
from bench.lab.topology import Lab
from bench.lab.wait import until

PATH_BYTES = 1400
ROOM_BYTES = PATH_BYTES - 28


@pytest.fixture
def narrow(able):
    """A fresh one for each test: what kernels have learned lasts for ten minutes."""
    with running(RoutedLab(PATH_BYTES)) as scene:
        yield scene


@pytest.fixture
def direct(able):
    """Two hosts on one link of 1500 bytes."""
    with running(Lab()) as scene:
        yield scene


def is_told(scene, sender):
    """Pings with DF until the sender's kernel knows why none is answered: the first only teaches ours."""

    def told():
        traffic.ping(sender, scene.b.pod_address, size=LONGEST - 28, dont_fragment=True, count=1)
        return known_to(sender, scene.b.pod_address) == ROOM_BYTES

    until(told, DEADLINE_S, f"{sender.name} has not been told")


@pytest.mark.parametrize("reverse", [False, True], ids=["a-to-b", "b-to-a"])
def test_tcp_works_and_its_sender_learns(narrow, reverse):
    sender, receiver = (narrow.b, narrow.a) if reverse else (narrow.a, narrow.b)
    found = traffic.tcp(traffic.Way(narrow.a.pod, narrow.b.pod, narrow.b.pod_address), seconds=2, reverse=reverse)
    assert found.received_bytes > 1_000_000
    assert known_to(sender.pod, receiver.pod_address) == ROOM_BYTES
    if not reverse:
        grown = narrow.tally.grown("tx_")
        assert narrow.path_mtu() == PATH_BYTES
        assert grown["tx_path_mtu_learned"] == 1
        assert grown["tx_icmp_too_big"] >= 1
        assert "tx_fragmented" not in grown


def test_packets_without_df_arrive_whole(narrow):
    """Cut inside, put together by the receiving pod: no datagram is longer than the path, none is cut outside."""
    with udp_pair(narrow) as (sender, receiver), packets.sniffer(narrow.b.namespace, "eth0") as wire:
        learn(narrow, sender, PATH_BYTES)
        sender.send(b"last")
        drain(receiver)
        narrow.tally.mark()
        sent = [bytes([i]) * (LONGEST - 28) for i in range(50)]
        for data in sent:
            sender.send(data)
        assert [receiver.recv(65535) for _ in sent] == sent
        all_of_them = {name: len(sent) for name in ("tx_received", "tx_delivered", "tx_fragmented")}
        narrow.tally.await_grown("tx_", {**all_of_them, "tx_datagrams": 2 * len(sent)})
        outer = receive(wire, 1000, 0)  # all have passed here before they were put together
    assert len(outer) >= 2 * len(sent)
    assert max(len(datagram) for datagram in outer) <= PATH_BYTES
    assert {datagram[6:8] for datagram in outer} == {b"\x40\x00"}, "DF, and no outer fragments"


def test_large_datagrams_arrive_whole(narrow):
    """Their sender's kernel has cut them to 1472 already: what is cut again are fragments."""
    with udp_pair(narrow) as (sender, receiver):
        learn(narrow, sender, PATH_BYTES)
        sender.send(b"last")
        drain(receiver)
        for size in (1445, 4000, 20000, 65507):
            data = bytes(range(256)) * (size // 256) + bytes(size % 256)
            sender.send(data)
            assert receiver.recv(65535) == data


def test_ping_with_df_is_told_the_mtu(narrow):
    """The router keeps the first; the second and all after it are answered, by us and then by the pod's own kernel."""
    said = narrow.a.pod.run(
        "ping", "-n", "-c4", "-i0.2", "-W2", "-Mdo", f"-s{LONGEST - 28}", narrow.b.pod_address, check=False
    )
    assert f"From 10.5.1.0 icmp_seq=2 Frag needed and DF set (mtu = {ROOM_BYTES})" in said
    assert "+3 errors" in said
    assert known_to(narrow.a.pod, narrow.b.pod_address) == ROOM_BYTES
    fits = traffic.ping(narrow.a.pod, narrow.b.pod_address, size=ROOM_BYTES - 28, dont_fragment=True)
    assert fits.received == fits.sent


def test_a_host_is_told_like_a_pod(narrow):
    is_told(narrow, narrow.a.namespace)
    assert traffic.ping(narrow.a.namespace, narrow.b.pod_address, size=ROOM_BYTES - 28).received == 5


def test_a_scan_does_not_cost_path_mtu_discovery(narrow):
    """ICMP errors about unused addresses have a limit of their own."""
    with udp_pair(narrow) as (sender, _):
        learn(narrow, sender, PATH_BYTES)
    narrow.tally.mark()
    scan = packets.ipv4(narrow.a.pod_address, "10.5.200.1", b"x")
    with packets.sniffer(narrow.a.namespace, "flannel0") as device:
        for _ in range(200):
            device.sendto(scan, ("flannel0", packets.ETH_P_IP))
    narrow.tally.await_grown("tx_drop", {"tx_drop_no_route": 200})
    traffic.ping(narrow.a.pod, narrow.b.pod_address, size=LONGEST - 28, dont_fragment=True, count=1)
    assert narrow.tally.grown("tx_icmp_limited")
    assert known_to(narrow.a.pod, narrow.b.pod_address) == ROOM_BYTES


def test_a_path_that_narrows_under_a_connection(able):
    """Twice; each time what is on the way is sent again in smaller segments, and the stream goes on."""
    with running(RoutedLab()) as scene, ThreadPoolExecutor(1) as pool:
        way = traffic.Way(scene.a.pod, scene.b.pod, scene.b.pod_address)
        stream = pool.submit(traffic.tcp, way, seconds=6)  # all of what follows has to be over by then
        for mtu in (None, PATH_BYTES, 1300):
            if mtu:
                scene.lab.narrow(mtu)
                until(lambda mtu=mtu: scene.path_mtu() == mtu, DEADLINE_S, f"path MTU {mtu}")
            before = scene.tally.read()["tx_delivered"]
            until(lambda it=before: scene.tally.read()["tx_delivered"] > it + 1000, DEADLINE_S, "the stream goes on")
        assert stream.result().received_bytes > 1_000_000
        assert known_to(scene.a.pod, scene.b.pod_address) == 1300 - 28


def test_the_interface_is_narrowed_in_use(direct):
    """By hand, twice: the kernel refuses what it took before, and the path is asked for anew each time."""
    with udp_pair(direct) as (sender, receiver):
        sender.send(bytes(LONGEST - 28))
        assert len(receiver.recv(65535)) == LONGEST - 28
        assert direct.path_mtu() is None
        for mtu in (PATH_BYTES, 1300):
            direct.a.namespace.ip(f"link set eth0 mtu {mtu}")
            direct.tally.mark()
            data = bytes([mtu % 251]) * (LONGEST - 28)
            sender.send(data)
            assert receiver.recv(65535) == data, "not even the first is lost: our own kernel says so at once"
            assert direct.path_mtu() == mtu
            grown = direct.tally.grown("tx_")
            assert grown["tx_path_mtu_learned"] == 1
            assert grown["tx_fragmented"] == 1
    found = traffic.tcp(traffic.Way(direct.a.pod, direct.b.pod, direct.b.pod_address), seconds=1)
    assert found.received_bytes > 1_000_000
    assert known_to(direct.a.pod, direct.b.pod_address) == 1300 - 28
