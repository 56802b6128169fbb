"""What one slow peer costs: the table is made of the document, and of all rounds."""

from bench import slow_peer
from bench.lab import parse

SAID = """PING 10.5.2.2 (10.5.2.2) 56(84) bytes of data.
64 bytes from 10.5.2.2: icmp_seq=1 ttl=62 time=0.214 ms
64 bytes from 10.5.2.2: icmp_seq=3 ttl=62 time=12.0 ms

--- 10.5.2.2 ping statistics ---
3 packets transmitted, 2 received, 33.3333% packet loss, time 21ms
rtt min/avg/max/mdev = 0.214/6.107/12.000/5.893 ms
"""


def seen(system, alone_ms, beside_ms, lost):
    return {
        "system": system,
        "alone": {"lost": 0, "round_trips_s": [alone_ms / 1e3] * 4},
        "beside": {"lost": lost, "round_trips_s": [beside_ms / 1e3] * 4},
    }


def test_each_answer_has_its_round_trip():
    assert parse.ping_each(SAID) == [0.000214, 0.012]


def test_a_row_for_each_system():
    rounds = [seen("udp", 0.3, at, lost) for at, lost in ((0.4, 1), (0.6, 2), (9.0, 0))] + [seen("vxlan", 0.1, 0.1, 0)]
    vxlan, udp = slow_peer.rows({"rounds": rounds})
    assert vxlan == ["vxlan", "500", "0", "0", "0.10 ms", "0.10 ms", "0.10 ms", "0.10 ms"]
    assert udp == ["udp", "1500", "0", "3", "0.30 ms", "0.60 ms", "0.30 ms", "0.60 ms"]
