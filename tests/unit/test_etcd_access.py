"""Endpoints of etcd, and what an etcd costs those who have none."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.errors import UsageError
from udpbackend.subnets.etcd.access import Access, EtcdUrl


@pytest.mark.parametrize(
    ("text", "expected", "target"),
    [
        ("http://127.0.0.1:4001", EtcdUrl("127.0.0.1", 4001, tls=False), "127.0.0.1:4001"),
        ("https://etcd.example:2379", EtcdUrl("etcd.example", 2379, tls=True), "etcd.example:2379"),
        ("https://[fd00::1]:2379", EtcdUrl("fd00::1", 2379, tls=True), "[fd00::1]:2379"),
    ],
)
def test_endpoints(text, expected, target):
    assert EtcdUrl.parse(text) == expected
    assert EtcdUrl.parse(f"{text}/") == expected
    assert expected.target == target
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1",
        "http://127.0.0.1",
        "http://:2379",
        "http://127.0.0.1:0",
        "http://127.0.0.1:65536",
        "http://127.0.0.1:x",
        "http://[fd00::1:2379",
        "unix:///run/etcd.sock",
        "http://user:pw@127.0.0.1:2379",
        "http://127.0.0.1:2379/v3",
    ],
)
def test_what_is_no_endpoint_is_named(text):
    with pytest.raises(UsageError) as caught:
        EtcdUrl.parse(text)
    assert str(caught.value).startswith(f"--etcd-endpoints: {text!r} is not an endpoint: expected host and port")


@given(st.text() | st.text(alphabet="htps:/[]@.%?#19", max_size=30).map("http://".__add__))
def test_any_text_is_an_endpoint_or_refused(text):
    try:
        url = EtcdUrl.parse(text)
    except UsageError:
        return
    assert EtcdUrl.parse(str(url)) == url


@pytest.mark.parametrize("tls", [False, True])
def test_without_a_scheme_the_asker_decides(tls):
    assert EtcdUrl.parse("[fd00::1]:2379", tls=tls) == EtcdUrl("fd00::1", 2379, tls=tls)
    assert EtcdUrl.parse("http://[fd00::1]:2379", tls=tls) == EtcdUrl("fd00::1", 2379, tls=False)


def test_a_password_is_not_shown():
    assert "s3cret" not in repr(Access(username="u", password="s3cret"))  # noqa: S106


def test_nobody_loads_grpc_but_who_uses_etcd():
    program = (
        "import sys, udpbackend.cli, udpbackend.daemon, udpbackend.subnets.static\n"
        "sys.exit(any(name in sys.modules for name in ('grpc', 'aetcd', 'google.protobuf')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
