"""The laboratory reads ping and iperf3 as they print, and refuses to take anything else for a result.

The texts are what iputils 20221126, busybox and iperf3 3.12 print, cut to what is looked at.
"""

import json

import pytest

from bench.lab import parse, table
from bench.lab.wait import LabError, until

PING = """PING 10.5.2.2 (10.5.2.2) 56(84) bytes of data.

--- 10.5.2.2 ping statistics ---
5 packets transmitted, 4 received, 20% packet loss, time 202ms
rtt min/avg/max/mdev = 0.079/0.136/0.194/0.057 ms
"""
PING_NOTHING = """PING 10.5.1.77 (10.5.1.77) 56(84) bytes of data.

--- 10.5.1.77 ping statistics ---
2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 102ms
pipe 2
"""
PING_BUSYBOX = """--- 10.5.2.2 ping statistics ---
2 packets transmitted, 2 packets received, 0% packet loss
round-trip min/avg/max = 0.052/0.061/0.071 ms
"""
TCP = {
    "start": {"test_start": {"protocol": "TCP", "reverse": 1}},
    "end": {
        "sum_sent": {"seconds": 1.000346, "bytes": 4995284992, "bits_per_second": 39948457769.6, "retransmits": 92},
        "sum_received": {"seconds": 1.000037, "bytes": 4994367488, "bits_per_second": 39953461625.9},
        "sender_tcp_congestion": "reno",
    },
}
UDP = {
    "start": {"test_start": {"protocol": "UDP"}},
    "end": {
        "sum": {"bytes": 12489400, "jitter_ms": 0.34, "lost_packets": 4572, "packets": 8921, "lost_percent": 51.2},
        "sum_sent": {"bytes": 12489400, "seconds": 1.00011},
        "sum_received": {"bytes": 6080200, "seconds": 1.001537, "bits_per_second": 48566952.6},
    },
}
REFUSED = {
    "start": {"connected": [], "version": "iperf 3.12"},
    "intervals": [],
    "end": {},
    "error": "unable to connect to server: Connection refused",
}


def test_ping_with_a_loss():
    found = parse.ping(PING)
    assert found == parse.Ping(sent=5, received=4, rtt_min_ms=0.079, rtt_avg_ms=0.136, rtt_max_ms=0.194)
    assert found.loss_percent == pytest.approx(20)


def test_ping_without_answers_has_no_round_trip():
    found = parse.ping(PING_NOTHING)
    assert found == parse.Ping(sent=2, received=0)
    assert found.loss_percent == 100


def test_ping_of_busybox():
    assert parse.ping(PING_BUSYBOX) == parse.Ping(2, 2, 0.052, 0.061, 0.071)


@pytest.mark.parametrize("text", ["", "ping: connect: Network is unreachable"])
def test_no_summary_is_no_result(text):
    with pytest.raises(LabError, match="no summary of ping"):
        parse.ping(text)


def test_tcp_counts_what_the_receiver_got():
    found = parse.iperf_tcp(json.dumps(TCP))
    assert (found.received_bytes, found.retransmits, found.congestion) == (4994367488, 92, "reno")
    assert found.gbit_s == pytest.approx(39.953, abs=0.001)


def test_udp_counts_what_the_receiver_got():
    found = parse.iperf_udp(json.dumps(UDP))
    assert (found.received_bytes, found.packets, found.lost) == (6080200, 8921, 4572)
    assert found.loss_percent == pytest.approx(51.25, abs=0.01)
    assert found.gbit_s == pytest.approx(0.0486, abs=0.0001)


def test_an_error_of_iperf3_is_passed_on():
    with pytest.raises(LabError, match=r"iperf3: unable to connect to server: Connection refused"):
        parse.iperf_tcp(json.dumps(REFUSED))


@pytest.mark.parametrize("text", ["", "iperf3: parameter error", "{}", '{"end": {}}', "[]", '{"end": {"sum": {}}}'])
def test_anything_else_is_no_result(text):
    with pytest.raises(LabError, match="iperf3 printed"):
        parse.iperf_tcp(text)


def test_the_other_protocol_is_no_result():
    with pytest.raises(LabError, match="no UDP run"):
        parse.iperf_udp(json.dumps(TCP))
    with pytest.raises(LabError, match="no TCP run"):
        parse.iperf_tcp(json.dumps(UDP))


def test_columns_are_as_wide_as_their_widest_cell():
    text = table.render(("path", "n"), [("a -> b", "1"), ("c", "234")], left=1)
    assert text.splitlines() == ["path      n", "-" * 11, "a -> b    1", "c       234"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (1234567, "1.23 M"),
        (12345, "12.3 k"),
        (99960, "100 k"),
        (999_600, "1 M"),
        (4994367488, "4.99 G"),
        (5e12, "5 T"),
    ],
)
def test_large_numbers_are_short(number, text):
    assert table.count(number) == text


def test_waiting_ends_with_the_condition_or_the_deadline():
    answers = iter([None, 0, 7])
    assert until(lambda: next(answers), 5, "seven") == 7
    with pytest.raises(LabError, match=r"never true: still waiting after 0\.05 s"):
        until(lambda: False, 0.05, "never true")
