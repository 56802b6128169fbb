"""What a daemon leaves to the next one: written and read back, and never believed when it is not whole."""

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.dataplane.estate import (
    FORMAT,
    PREFACE,
    Header,
    Parts,
    Record,
    State,
    memfd,
    newest,
    pack,
    read,
    unpack,
    write,
)

PARTS = Parts(
    device="flannel0",
    tun_address="10.5.1.0",
    tun_address6=None,
    local_address="192.0.2.1",
    port=8285,
    fds=("tun-0", "udp-0"),
)
HEADER = Header(version="1.2.3", settings={"workers": "2"}, parts=PARTS)
TEXT = st.text(max_size=20)
COUNTERS = st.dictionaries(TEXT, st.integers(0, 2**63 - 1), max_size=5)


def state(**changes):
    return State(**{"header": HEADER, "routes": b"routes", "peers": b"peers", "row_bytes": 5} | changes)


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(0, 2**32 - 1), COUNTERS, TEXT)
def test_it_is_read_as_it_was_written(routes, peers, row_bytes, counters, version):
    header = msgspec.structs.replace(HEADER, counters=counters, version=version)
    written = State(header=header, routes=routes, peers=peers, row_bytes=row_bytes)
    assert unpack(pack(written)) == written


@given(st.data())
def test_a_damaged_one_is_none(data):
    packed = pack(state())
    at = data.draw(st.integers(0, len(packed) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    damaged = packed[:at] + bytes([packed[at] ^ bit]) + packed[at + 1 :]
    found = unpack(damaged)
    assert found is None or (20 <= at < 24 and msgspec.structs.replace(found, row_bytes=5) == state())
    assert unpack(packed[:at]) is None
    assert unpack(packed + b"\0") is None


@given(st.binary(max_size=300))
def test_anything_else_is_none(data):
    assert unpack(data) is None
    assert unpack(PREFACE.pack(b"udpb-st1", len(data), 0, 0, 0, 0) + data) is None


def test_another_format_is_none():
    assert unpack(pack(state(header=msgspec.structs.replace(HEADER, format=FORMAT + 1)))) is None


@pytest.fixture
def record():
    made = Record()
    yield made
    made.close()


def test_the_last_one_counts(record):
    for number in range(5):
        record.write(HEADER, bytes([number]))
        assert newest(record.fds).routes == bytes([number])


def test_a_writer_that_dies_in_the_midst_leaves_the_one_before(record):
    record.write(HEADER, b"first")
    record.write(HEADER, b"second")
    for fd in record.fds.values():
        if read(fd).routes == b"second":
            os.ftruncate(fd, os.fstat(fd).st_size - 1)
    assert newest(record.fds).routes == b"first"


def test_the_next_process_goes_on_counting():
    record = Record()
    record.write(HEADER, b"first")
    after = Record(dict(record.fds))  # the same pair, as fds that were inherited
    after.write(HEADER, b"second")
    assert newest(after.fds).routes == b"second"
    assert {read(fd).routes for fd in after.fds.values()} == {b"first", b"second"}
    after.close()


def test_who_goes_on_after_a_successor_that_has_written_is_newer_than_it():
    record = Record()
    record.write(HEADER, b"first")
    after = Record({name: os.dup(fd) for name, fd in record.fds.items()})
    after.write(HEADER, b"its first")
    after.write(HEADER, b"its second")
    after.close()
    record.catch_up()
    record.write(HEADER, b"second")
    assert newest(record.fds).routes == b"second"
    record.close()


def test_half_a_pair_is_completed():
    record = Record({"state-b": memfd()})
    assert sorted(record.fds) == ["state-a", "state-b"]
    assert newest(record.fds) is None
    record.close()


def test_an_fd_that_is_none_of_ours_is_none(tmp_path):
    for path in ("/dev/null", "/dev/zero", "/proc/self/status", str(tmp_path)):
        fd = os.open(path, os.O_RDONLY)
        assert read(fd) is None
        os.close(fd)
    assert read(-1) is None


def test_a_shorter_one_replaces_a_longer_one():
    fd = memfd()
    write(fd, state(routes=b"x" * 1000))
    write(fd, state(routes=b"y"))
    assert read(fd) == state(routes=b"y")
    os.close(fd)
