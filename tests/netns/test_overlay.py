"""The overlay carries traffic: between pods and hosts, both ways, at every packet size, with counters to prove it."""

import socket

import pytest
import raw_packets

from bench.lab import traffic
from bench.lab.daemon import Overlay
from bench.lab.topology import Host

WAYS = [("a", "b"), ("b", "a")]
TRIES = 3
"""On a busy machine the receiver itself may not run for a while, and its socket overflows."""
BURST = 100
"""Raw packets on the way at once: well below every queue on it."""


@pytest.mark.parametrize(("here", "there"), WAYS)
def test_pod_pings_pod(overlay: Overlay, here, there):
    found = traffic.ping(overlay.lab.host(here).pod, overlay.lab.host(there).pod_address, count=20)
    assert found.received == found.sent == 20


@pytest.mark.parametrize(("here", "there"), WAYS)
def test_host_pings_pod(overlay: Overlay, here, there):
    host, other = overlay.lab.host(here), overlay.lab.host(there)
    plain = traffic.ping(host.namespace, other.pod_address)
    from_bridge = traffic.ping(host.namespace, other.pod_address, source=host.gateway)
    assert (plain.received, from_bridge.received) == (plain.sent, from_bridge.sent)


@pytest.mark.parametrize(("here", "there"), WAYS)
def test_pod_pings_host(overlay: Overlay, here, there):
    found = traffic.ping(overlay.lab.host(here).pod, overlay.lab.host(there).gateway)
    assert found.received == found.sent


@pytest.mark.parametrize("size", [1444, 1445, 4000, 20000])
def test_fragments_arrive(overlay: Overlay, size):
    """1444 bytes of ICMP payload are the MTU exactly; one more makes two fragments."""
    a, b = overlay.lab.hosts
    found = traffic.ping(a.pod, b.pod_address, size=size)
    assert found.received == found.sent


def test_what_exceeds_the_mtu_is_refused_where_it_starts(overlay: Overlay):
    a, b = overlay.lab.hosts
    assert traffic.ping(a.pod, b.pod_address, size=1444, dont_fragment=True, count=2).received == 2
    assert traffic.ping(a.pod, b.pod_address, size=1445, dont_fragment=True, count=2).received == 0


@pytest.mark.parametrize("reverse", [False, True], ids=["a-to-b", "b-to-a"])
def test_tcp_goes_through_both_daemons(overlay: Overlay, reverse):
    a, b = overlay.lab.hosts
    sender, receiver = (b, a) if reverse else (a, b)
    before = {host: overlay.carried(host) for host in (sender, receiver)}
    found = traffic.tcp(traffic.Way(a.pod, b.pod, b.pod_address), seconds=2, reverse=reverse)
    sent = overlay.carried(sender) - before[sender]
    got = overlay.carried(receiver) - before[receiver]
    assert found.received_bytes > 1_000_000
    assert sent.tx_bytes > found.received_bytes
    assert got.rx_bytes > found.received_bytes


def test_udp_at_a_modest_rate_loses_little(overlay: Overlay):
    a, b = overlay.lab.hosts
    for _ in range(TRIES):
        found = traffic.udp(traffic.Way(a.pod, b.pod, b.pod_address), seconds=2, rate="20M")
        assert found.packets > 1000
        if found.loss_percent < 1:
            return
    assert found.loss_percent < 1


@pytest.mark.parametrize(("here", "there"), WAYS)
def test_every_packet_size_arrives_intact(overlay: Overlay, here, there):
    """From a bare header to the MTU; two kernels forward (TTL 64 - 2) and nobody else touches anything."""
    source, target = overlay.lab.host(here), overlay.lab.host(there)
    sizes = range(raw_packets.HEADER_BYTES, source.overlay_mtu + 1)
    with raw_packets.raw_socket(source.pod) as sender, raw_packets.raw_socket(target.pod) as receiver:
        for start in range(sizes.start, sizes.stop, BURST):
            burst = range(start, min(start + BURST, sizes.stop))
            for size in burst:
                sender.sendto(packet_of(source, target, size), (target.pod_address, 0))
            found = {len(data): data for data in raw_packets.receive(receiver, len(burst), 5)}
            assert sorted(found) == list(burst)
            for size, data in found.items():
                assert without_checksum(data) == without_checksum(expected(source, target, size))


def packet_of(source: Host, target: Host, size: int) -> bytes:
    return raw_packets.packet(source.pod_address, target.pod_address, size)


def expected(source: Host, target: Host, size: int) -> bytes:
    sent = packet_of(source, target, size)
    return sent[:8] + bytes([sent[8] - 2]) + sent[9:]


def without_checksum(data: bytes) -> bytes:
    """The kernel has checked it already: a packet with a wrong one would not have come this far."""
    return data[:10] + data[12:]


def test_raw_sockets_stay_in_their_namespace(overlay: Overlay):
    """The instrument works: what is sent to nobody is not received."""
    a, b = overlay.lab.hosts
    with raw_packets.raw_socket(a.pod) as sender, raw_packets.raw_socket(b.namespace) as other:
        sender.sendto(packet_of(a, b, 100), (b.pod_address, 0))
        assert raw_packets.receive(other, 1, 0.2) == []
        assert isinstance(other, socket.socket)


def test_a_network_of_class_e_is_one_like_any_other(make_overlay):
    overlay = make_overlay(start=False)
    registry = overlay.registry
    registry.write_text(registry.read_text().replace('"10.5.', '"240.5.'))
    overlay.start_all()
    a, b = overlay.lab.hosts
    for here, there in ((a, "240.5.2.0"), (b, "240.5.1.0")):  # between the addresses of flannel0
        assert traffic.ping(here.namespace, there, count=3).received == 3


def test_three_hosts_meet_pairwise(make_overlay):
    overlay = make_overlay(hosts=3)
    for here in overlay.lab.hosts:
        for there in overlay.lab.hosts:
            if here is not there:
                assert traffic.ping(here.pod, there.pod_address, count=3).received == 3
