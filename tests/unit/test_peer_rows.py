"""Peers as the C side copies them: counters when asked for, and how many were heard of without making any."""

from ipaddress import IPv4Address

import pytest

from udpbackend._native import ffi
from udpbackend.dataplane import native
from udpbackend.dataplane.native import PeerRows
from udpbackend.model import inet


@pytest.fixture
def rows():
    """Three peers, the last of them heard 1.5 s ago, in memory for four."""
    made = ffi.new("struct udpb_peer[]", 4)
    for i, silent_ns in enumerate((-1, 0, 1_500_000_000, 7)):
        made[i].address_be = inet(IPv4Address(f"192.0.2.{i}"))
        made[i].tx_packets = 10 + i
        made[i].silent_ns = silent_ns
    return PeerRows(made, 3)


def test_each_row_is_a_peer(rows):
    assert [(str(it.address), it.tx_packets, it.silent_s) for it in rows] == [
        ("192.0.2.0", 10, None),
        ("192.0.2.1", 11, 0.0),
        ("192.0.2.2", 12, 1.5),
    ]


def test_they_are_indexed_like_any_sequence(rows):
    assert (len(rows), rows[-1], rows[1:]) == (3, rows[2], list(rows)[1:])
    with pytest.raises(IndexError):
        rows[3]


def test_addresses_and_silence_are_known_without_making_a_peer(rows, monkeypatch):
    expected = [int(it.address) for it in rows]
    monkeypatch.setattr(native, "PeerCounters", None)
    assert (list(rows.addresses), rows.silent) == (expected, [0])


def test_slow_are_those_that_lost_packets_lately(rows):
    for row, ago_ns in zip(rows._rows, (-1, 0, 9_999_999_999, 0), strict=True):
        row.dropped_ago_ns = ago_ns
    assert [str(it.address) for it in rows.slow] == ["192.0.2.1", "192.0.2.2"]
    rows._rows[1].dropped_ago_ns = 10_000_000_000
    assert [str(it.address) for it in rows.slow] == ["192.0.2.2"]


def test_seen_counts_rows_and_not_memory(rows):
    assert rows.seen == 2
    assert PeerRows(ffi.new("struct udpb_peer[]", 1), 0).seen == 0


def test_a_peer_is_seen_for_two_minutes_and_unanswered_whatever_came_before(rows):
    for row, silent_s, asked_s in zip(rows._rows, (119, 120, 20, 20), (9, 9, 10, 0), strict=True):
        row.silent_ns, row.unanswered_s = silent_s * 10**9, asked_s
    assert [it.state for it in rows] == ["seen", "silent", "unanswered"]
    assert (rows.seen, rows.silent, rows.unanswered) == (1, [1], [2])
