"""What the bench reads from programs and from /proc, as values."""

import pytest

from bench import links, meter, surroundings
from bench.lab.wait import LabError
from bench.systems import scaled
from bench.workloads import connect, publish, sockperf

SOCKPERF = """\
sockperf: == version #3.7-no.git ==
sockperf: [Total Run] RunTime=2.000 sec; Warm up time=400 msec; SentMessages=7079; ReceivedMessages=7078
sockperf: [Valid Duration] RunTime=1.550 sec; SentMessages=3787; ReceivedMessages=3787
sockperf: Summary: Latency is 72.655 usec
sockperf: ---> <MAX> observation = 1548.785
sockperf: ---> percentile 99.999 = 1548.785
sockperf: ---> percentile 99.990 = 1548.785
sockperf: ---> percentile 99.900 = 1308.067
sockperf: ---> percentile 99.000 =  502.733
sockperf: ---> percentile 90.000 =   72.222
sockperf: ---> percentile 75.000 =   63.885
sockperf: ---> percentile 50.000 =   55.442
sockperf: ---> percentile 25.000 =   52.733
sockperf: ---> <MIN> observation =   21.416
"""

DEVICES = """\
Inter-|   Receive                                          |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:  100       1    0    0    0     0          0         0   100       1    0    0    0     0       0          0
flannel0: 1500    10    0    2    0     0          0         0  3000      20    0    7    0     0       0          0
"""

SNMP = """\
Ip: Forwarding DefaultTTL
Ip: 1 64
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors
Udp: 100 2 9 300 9 0
UdpLite: InDatagrams NoPorts
UdpLite: 0 0
"""

ETHTOOL = """\
Features for eth0:
rx-checksumming: on
tx-checksumming: on
\ttx-checksum-ip-generic: on
tcp-segmentation-offload: off
\ttx-tcp-segmentation: off
generic-receive-offload: on
rx-vlan-filter: off [fixed]
"""


def test_sockperf_latencies_are_in_seconds():
    found = sockperf.parse(SOCKPERF)
    assert found.received == 7078
    assert found.latencies_s["latency_p50_s"] == pytest.approx(55.442e-6)
    assert found.latencies_s["latency_p99_s"] == pytest.approx(502.733e-6)
    assert found.latencies_s["latency_p999_s"] == pytest.approx(1308.067e-6)
    assert len(found.latencies_s) == 6


@pytest.mark.parametrize("text", ["", "sockperf: ERROR: No messages were received from the server."])
def test_sockperf_without_latencies_is_an_error(text):
    with pytest.raises(LabError, match="no latencies"):
        sockperf.parse(text)


def test_the_connect_client():
    assert connect.parse("made 27213 failed 1 seconds 1.005777\n") == connect.Made(27213, 1, 1.005777)
    with pytest.raises(LabError):
        connect.parse("connect: listen: Address already in use")


def test_the_receiver_of_a_steady_stream():
    assert publish.parse("came 4991 lost 10 pause_ns 2000000\n") == publish.Stream(4991, 10, 0.002)
    with pytest.raises(LabError):
        publish.parse("came 0 lost 0 pause_ns 0\n")


def test_publications_in_the_metrics():
    text = "udpbackend_route_publish_seconds_count 3.0\nudpbackend_route_publish_seconds_sum 0.25\n"
    assert scaled.parse_published(text) == scaled.Published(3, 0.25)
    with pytest.raises(LabError):
        scaled.parse_published("udpbackend_info 1\n")


def test_links_of_a_namespace():
    found = meter.parse_links(DEVICES)
    assert found["flannel0"] == meter.Link(
        rx_bytes=1500, rx_packets=10, rx_drops=2, tx_bytes=3000, tx_packets=20, tx_drops=7
    )
    assert meter.Seen(found, socket_drops=5).drops == 14


def test_datagrams_that_found_a_socket_full():
    assert meter.parse_socket_drops(SNMP) == 9


def test_processor_time():
    ticks = meter.TICKS_S
    stat = f"cpu  {100 * ticks} 0 {20 * ticks} 999 5 {ticks} {2 * ticks} 77 0 0\ncpu0 1 2 3\n"
    assert meter.parse_machine_busy_s(stat) == 123
    process = f"42 (a (strange) name) S 1 2 3 4 5 6 7 8 9 10 {3 * ticks} {4 * ticks} 0 {ticks} 20 0"
    assert meter.parse_process_busy_s(process) == 8


def test_offloads_as_read_back():
    found = links.parse_features(ETHTOOL)
    assert found["tcp-segmentation-offload"] is False
    assert found["generic-receive-offload"] is True
    assert found["rx-vlan-filter"] is False


def test_what_each_link_wants():
    assert all(links.PROFILES["pass-through"].wanted()[name] for name in links.FEATURES if name != "gro")
    assert links.PROFILES["wire"].wanted()["gro"]
    assert not any(links.PROFILES["wire-nogro"].wanted().values())


def test_the_machine():
    assert surroundings.parse_cpu("processor\t: 0\nmodel name\t: A Fast One\n") == "A Fast One"
    assert surroundings.parse_memory_bytes("MemFree: 1 kB\nMemTotal:    2048 kB\n") == 2 << 20
    assert surroundings.parse_cpu("") == ""
    assert {"cpu", "cores", "kernel", "load_at_start"} <= surroundings.machine().keys()
