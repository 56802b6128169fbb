"""Prefixes: reading, writing and their relations, against the standard library's networks."""

import contextlib
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.errors import ConfigError
from udpbackend.model import WIDTH, Lease, Prefix, can_be_a_hosts, inet


@st.composite
def prefixes(draw, versions=(4, 6)):
    version = draw(st.sampled_from(versions))
    bits = draw(st.integers(0, WIDTH[version]))
    return Prefix(draw(st.integers(0, 2 ** WIDTH[version] - 1)), bits, version).masked()


@st.composite
def near_pairs(draw):
    """Two prefixes, often one inside the other: purely random ones would hardly ever meet."""
    one = draw(prefixes())
    if draw(st.booleans()):
        return one, draw(prefixes())
    bits = draw(st.integers(0, WIDTH[one.version]))
    return one, Prefix(one.address | draw(st.integers(0, one.host_mask)), bits, one.version).masked()


@given(prefixes())
def test_parse_reads_what_str_writes(prefix):
    assert Prefix.parse(str(prefix)) == prefix
    assert ip_network(str(prefix)).prefixlen == prefix.bits


@given(near_pairs())
def test_relations_are_those_of_ipaddress(pair):
    one, other = pair
    if one.version != other.version:
        assert not one.overlaps(other)
        assert not one.contains(other)
        return
    first, second = ip_network(str(one)), ip_network(str(other))
    assert one.overlaps(other) == first.overlaps(second)
    assert one.contains(other) == second.subnet_of(first)
    assert one.holds(other.base) == (second.network_address in first)
    assert one.last == int(first.broadcast_address)


HOSTS = ["1.0.0.0", "126.255.255.255", "128.0.0.1", "169.254.1.1", "223.255.255.255", "240.0.0.0", "240.5.1.2",
         "255.255.255.254", "::2", "::fffe:a00:1", "fd00::1", "fe7f::1", "fec0::1", "2001:db8::1"]  # fmt: skip
NO_HOSTS = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "224.0.0.1", "239.255.255.255", "255.255.255.255",
            "::", "::1", "::ffff:10.0.0.1", "ff02::1", "ffff::", "fe80::1", "febf:ffff::1"]  # fmt: skip


@pytest.mark.parametrize(("texts", "can_be"), [(HOSTS, True), (NO_HOSTS, False)], ids=["hosts", "no hosts"])
def test_whose_address_can_be_a_hosts(texts, can_be):
    for address in map(ip_address, texts):
        assert can_be_a_hosts(int(address), address.version) is can_be, address


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_host_bits_are_refused_or_masked(address, bits):
    text = f"{IPv4Address(address)}/{bits}"
    masked = Prefix.parse(text, mask=True)
    assert str(masked) == str(ip_network(text, strict=False))
    if masked.address == address:
        assert Prefix.parse(text) == masked
    else:
        with pytest.raises(ConfigError, match="host bits are set"):
            Prefix.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "10.5.0.0",
        "10.5.0.0/",
        "10.5.0.0/33",
        "10.5.0.0/-1",
        "10.5.0.0/+8",
        "10.5.0/24",
        "010.5.0.0/16",
        "10.5.0.0/24/24",
        "10.5.0.0/x",
        "x/8",
        "fc00::/129",
        " 10.5.0.0/16",
        "10.5.0.0/\u0663",
        "1/8",
    ],
)
def test_what_is_no_prefix_is_named(text):
    with pytest.raises(ConfigError) as caught:
        Prefix.parse(text)
    assert repr(text) in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_a_prefix_or_a_config_error(text):
    with contextlib.suppress(ConfigError):
        assert isinstance(Prefix.parse(text), Prefix)


def test_packed_and_inet_are_in_network_order():
    assert Prefix.parse("10.5.1.0/24").packed() == bytes([10, 5, 1, 0])
    assert len(Prefix.parse("fc00::/7").packed()) == 16
    assert memoryview(bytes([10, 5, 1, 2])).cast("I")[0] == inet(IPv4Address("10.5.1.2"))


def test_base_and_lease_addresses_are_addresses():
    assert Prefix.parse("10.5.1.0/24").base == IPv4Address("10.5.1.0")
    assert Prefix.parse("fc00::/7").base == IPv6Address("fc00::")
    assert Lease(Prefix.parse("10.5.1.0/24"), int(ip_address("192.0.2.1"))).public_address == IPv4Address("192.0.2.1")
