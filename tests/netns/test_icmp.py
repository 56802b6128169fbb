"""Nobody owns the destination: the sender is told at once, within the limit, and never where ICMP must be silent."""

import errno
import select
import socket
import time

import packets
import pytest
from counted import Tally
from raw_packets import receive

from bench.lab.daemon import Overlay
from bench.lab.topology import Lab

NOWHERE = "10.5.200.1"
"""In the network, in no node's subnet."""
AT_ONCE_S = 2.0
"""What a busy machine may take for what should take a millisecond; every time-out of the kernel is longer."""
IP_RECVERR = 11
NO_ROUTE = f"Errno {errno.EHOSTUNREACH}\\b"
BURST, PER_SECOND = 50, 100
FLOOD = 100
"""Packets at once; flannel0's queue holds 500."""
ENOUGH = 1000
"""Packets of a flood: a busy machine may need more than its second for them."""


@pytest.fixture(scope="module")
def overlay(able):
    with Lab() as lab, Overlay(lab) as overlay:
        overlay.launch(lab.host("a"))
        overlay.await_ready(lab.host("a"))
        yield overlay
        overlay.stop_all()


@pytest.fixture
def tally(overlay):
    return Tally(overlay, overlay.lab.host("a"))


@pytest.fixture(params=["pod", "host"])
def sender(overlay, request):
    a = overlay.lab.host("a")
    return a.pod if request.param == "pod" else a.namespace


def test_ping_says_unreachable(overlay, sender):
    said = sender.run("ping", "-n", "-c2", "-i0.2", "-W2", NOWHERE, check=False)
    assert said.count("From 10.5.1.0 icmp_seq=") == 2
    assert said.count("Destination Host Unreachable") == 2
    assert "+2 errors, 100% packet loss" in said


def test_tcp_fails_at_once(sender):
    with sender.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as client:
        client.settimeout(30)
        began = time.monotonic()
        with pytest.raises(OSError, match=NO_ROUTE):
            client.connect((NOWHERE, 80))
        assert time.monotonic() - began < AT_ONCE_S


def test_udp_is_told_if_it_asks(sender):
    """Linux gives a soft error, as this is, to a UDP socket only if it asks for errors."""
    with sender.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        client.connect((NOWHERE, 4000))
        client.send(b"anybody?")
        client.settimeout(AT_ONCE_S)
        with pytest.raises(OSError, match=NO_ROUTE):
            client.recv(100)


def test_what_is_quoted(overlay):
    """Type 3 code 1 from flannel0's address, with as much of the packet as RFC 1812 asks for."""
    a = overlay.lab.host("a")
    packet = packets.udp((a.pod_address, 4000), (NOWHERE, 4001), bytes(range(250)) * 4, identification=0x1234)
    with packets.sniffer(a.pod, "eth0") as seen, packets.raw_socket(a.pod) as pod:
        pod.sendto(packet, (NOWHERE, 0))
        [error] = receive(seen, 1, AT_ONCE_S)
    assert packets.is_sound(error)
    assert (error[9], error[20:28]) == (packets.ICMP, bytes([3, 1]) + error[22:24] + bytes(4))
    assert socket.inet_ntoa(error[12:16]) == "10.5.1.0"
    assert socket.inet_ntoa(error[16:20]) == a.pod_address
    assert error[28:] == packets.forwarded(packet)[: len(error) - 28]
    assert len(error) == 576


@pytest.mark.parametrize("address", ["10.5.1.0", "10.5.1.1", "10.5.1.77"])
def test_nobody_answers_for_our_own_subnet_but_us(overlay, tally, address):
    """What reaches flannel0 for it has lost its way: it is never sent to a peer."""
    a = overlay.lab.host("a")
    packet = packets.udp((a.pod_address, 4000), (address, 4001), b"lost")
    with packets.sniffer(a.pod, "eth0") as seen, packets.sniffer(a.namespace, "flannel0") as device:
        device.sendto(packet, ("flannel0", packets.ETH_P_IP))
        tally.await_grown("tx", {"tx_received": 1, "tx_drop_no_route": 1, "tx_icmp_unreachable": 1})
        [error] = receive(seen, 1, AT_ONCE_S)
    assert error[20:22] == bytes([3, 1])


def quiet(pod: str) -> dict[str, bytes]:
    """Packets that must not be answered (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7)."""
    about = packets.udp((NOWHERE, 4000), (pod, 4001), b"whatever it was")
    errors = {"unreachable": (3, 1), "too-big": (3, 4), "quench": (4, 0), "redirect": (5, 1), "time": (11, 0)}
    errors |= {"parameter": (12, 0), "unknown-type": (200, 0)}
    found = {f"icmp-{name}": packets.icmp(pod, NOWHERE, kind, bytes(4) + about[:28]) for name, kind in errors.items()}
    return found | {
        "icmp-without-a-type": packets.ipv4(pod, NOWHERE, protocol=packets.ICMP),
        "second-fragment": packets.ipv4(pod, NOWHERE, bytes(100), fragment=packets.MORE_FRAGMENTS | 10),
        "last-fragment": packets.ipv4(pod, NOWHERE, bytes(100), fragment=10),
        "to-multicast": packets.ipv4(pod, "224.0.0.251", bytes(10)),
        "to-multicast-last": packets.ipv4(pod, "239.255.255.255", bytes(10)),
        "to-broadcast": packets.ipv4(pod, "255.255.255.255", bytes(10)),
        "to-loopback": packets.ipv4(pod, "127.0.0.1", bytes(10)),
        "from-nobody": packets.ipv4("0.0.0.0", NOWHERE, bytes(10)),
        "from-multicast": packets.ipv4("224.0.0.1", NOWHERE, bytes(10)),
        "from-broadcast": packets.ipv4("255.255.255.255", NOWHERE, bytes(10)),
        "from-loopback": packets.ipv4("127.0.0.1", NOWHERE, bytes(10)),
    }


@pytest.mark.parametrize("name", quiet("10.5.1.2"))
def test_silence(overlay, tally, name):
    """A packet that is answered follows it: its answer is the first and only one."""
    a = overlay.lab.host("a")
    packet = quiet(a.pod_address)[name]
    answered = packets.ipv4(a.pod_address, NOWHERE, b"this one", fragment=packets.MORE_FRAGMENTS)
    with packets.sniffer(a.pod, "eth0") as seen, packets.sniffer(a.namespace, "flannel0") as device:
        device.sendto(packet, ("flannel0", packets.ETH_P_IP))
        dropped = "tx_drop_multicast" if name.startswith(("to-multicast", "to-broadcast")) else "tx_drop_no_route"
        tally.await_grown("tx", {"tx_received": 1, dropped: 1, "tx_icmp_suppressed": 1})
        device.sendto(answered, ("flannel0", packets.ETH_P_IP))
        [error] = receive(seen, 1, AT_ONCE_S)
        assert error[28:] == answered
        assert not select.select([seen], [], [], 0)[0]


@pytest.mark.parametrize("kind", [0, 8, 9, 10, 13, 14, 15, 16, 17, 18])
def test_icmp_queries_are_answered_like_anything_else(overlay, tally, kind):
    a = overlay.lab.host("a")
    with packets.sniffer(a.namespace, "flannel0") as device:
        device.sendto(packets.icmp(a.pod_address, NOWHERE, (kind, 0), bytes(4)), ("flannel0", packets.ETH_P_IP))
        tally.await_grown("tx", {"tx_received": 1, "tx_drop_no_route": 1, "tx_icmp_unreachable": 1})


def test_the_limit_holds(overlay, tally):
    """Under a flood of some thousand packets a second, each is accounted for, answered or not."""
    a = overlay.lab.host("a")
    packet = packets.udp((a.pod_address, 4000), (NOWHERE, 4001), b"flood")
    sent, began = 0, time.monotonic()
    with packets.sniffer(a.pod, "eth0") as seen, packets.sniffer(a.namespace, "flannel0") as device:
        while time.monotonic() - began < 1 or sent <= ENOUGH:
            for _ in range(FLOOD):
                device.sendto(packet, ("flannel0", packets.ETH_P_IP))
            sent += FLOOD
            tally.await_grown("tx_received", {"tx_received": sent})  # so that flannel0's own queue never overflows
        elapsed = time.monotonic() - began
        found = {"tx_received": sent, "tx_drop_no_route": sent}
        tally.await_grown("tx_drop", {"tx_drop_no_route": sent})
        grown = tally.grown("tx")
        answers = grown["tx_icmp_unreachable"]
        assert grown == found | {"tx_icmp_unreachable": answers, "tx_icmp_limited": sent - answers}
        assert len(receive(seen, answers, 5)) == answers
        assert not select.select([seen], [], [], 0)[0]
    slack = 0.1 * PER_SECOND * elapsed + 5
    assert 0.5 * PER_SECOND * elapsed < answers < BURST + PER_SECOND * elapsed + slack
