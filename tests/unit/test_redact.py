"""What a report leaves out: secrets always, public addresses on request, and nothing else."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.commands.redact import SECRET, Redaction
from udpbackend.model import Prefix

PUBLIC4 = st.ip_addresses(v=4).filter(lambda it: it.is_global)
PUBLIC6 = st.ip_addresses(v=6).filter(lambda it: it.is_global)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("--etcd-password=hunter2 --iface=eth0", f"--etcd-password={SECRET} --iface=eth0"),
        ('{"password": "hunter2", "port": 8285}', f'{{"password": "{SECRET}", "port": 8285}}'),
        ("https://user:hunter2@192.0.2.1:2379/x", f"https://user:{SECRET}@192.0.2.1:2379/x"),
        ("Authorization: Bearer hunter2", f"Authorization: Bearer {SECRET}"),
        ("token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", f"token {SECRET}"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nrest", f"{SECRET}\nrest"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE cut", SECRET),
        ("no secret here: 10.5.1.0/24", "no secret here: 10.5.1.0/24"),
    ],
)
def test_secrets_go_and_what_stands_around_them_stays(text, left):
    assert Redaction(addresses=False).apply(text) == left
    assert "hunter2" not in Redaction(addresses=True).apply(text)


@given(st.lists(PUBLIC4 | PUBLIC6, min_size=1), st.sampled_from([" ", "\n", "/32 ", ",", '"', " dev "]))
def test_no_public_address_is_left_and_each_keeps_one_word(addresses, between):
    redaction = Redaction(addresses=True)
    text = between.join(map(str, addresses)) + between
    left = redaction.apply(text)
    assert not any(f"{between}{it}{between}" in between + left for it in addresses)
    words = left.split(between)
    for it, word in zip(addresses, words, strict=False):
        assert word.startswith(f"public-ipv{it.version}-")
        assert redaction.apply(str(it)) == word


@given(st.ip_addresses())
def test_an_address_is_left_alone_unless_it_is_public(address):
    left = Redaction(addresses=True).apply(f"src {address} dev")
    assert (left == f"src {address} dev") is not address.is_global


def test_the_overlays_own_network_stays_though_it_looks_public():
    redaction = Redaction(addresses=True, keep=[Prefix.parse("11.0.0.0/8"), Prefix.parse("2a00:5::/32")])
    assert redaction.apply("11.5.1.2 2a00:5::1 11.5.1.2/24") == "11.5.1.2 2a00:5::1 11.5.1.2/24"
    assert redaction.apply(str(IPv4Address("8.8.8.8"))) == "public-ipv4-1"
    assert redaction.apply(str(IPv6Address("2a00:6::1"))) == "public-ipv6-2"


@pytest.mark.parametrize("text", ["22:41:07.123456", "02:42:ac:11:00:02", "6.18.44", "1.2.3.4.5", "udp-backend 0.1.0"])
def test_times_macs_and_versions_are_no_addresses(text):
    assert Redaction(addresses=True).apply(text) == text


@given(st.text())
def test_any_text_can_be_redacted(text):
    Redaction(addresses=True).apply(text)
