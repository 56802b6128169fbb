"""flannel's keys and values in etcd, to the byte."""

import json
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.errors import ConfigError
from udpbackend.model import Attributes, Lease, Prefix
from udpbackend.subnets.etcd.keys import Keys, encode

KEYS = Keys("/coreos.com/network")
UDP = b'{"PublicIP":"192.168.78.1","PublicIPv6":null}'
VXLAN = b'{"PublicIP":"192.168.78.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2"}}'

SUBNETS4 = st.builds(lambda a, n: Prefix(a, n).masked(), st.integers(0, 2**32 - 1), st.integers(0, 31))
SUBNETS6 = st.builds(
    lambda a, n: Prefix(a, n, 6).masked(),
    st.integers(2**48, 2**128 - 1),  # below, addresses have a dotted form that flannel does not read either
    st.integers(20, 127),
)


def key(name):
    return b"/coreos.com/network/subnets/" + name.encode()


def subnets(text, text6=None):
    return Prefix.parse(text), Prefix.parse(text6) if text6 else None


def test_the_places():
    assert KEYS.config == b"/coreos.com/network/config"
    assert KEYS.subnets == b"/coreos.com/network/subnets/"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("10.5.3.0-24", subnets("10.5.3.0/24")),
        ("10.5.84.0-24&fc00:0:0:39::-64", subnets("10.5.84.0/24", "fc00:0:0:39::/64")),
        ("10.5.3.4-30&fc00::1:0-112", subnets("10.5.3.4/30", "fc00::1:0/112")),
        ("0.0.0.0-0", subnets("0.0.0.0/0")),
    ],
)
def test_keys_both_ways(name, expected):
    assert KEYS.parse(key(name)) == expected
    assert KEYS.key(expected) == key(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "garbage",
        "10.5.3.0",
        "10.5.3.0-",
        "10.5.3.0/24",
        "10.5.3.0-24 ",
        "10.5.3.0-24\n",
        "x10.5.3.0-24",
        "10.5.3.1-24",  # host bits
        "10.5.3-24",
        "10.5.3.0.0-24",
        "10.5.3.256-32",
        "010.5.3.0-24",
        "10.5.3.0-32",
        "10.5.3.0-99",
        "10.5.3.0--4",
        "\u0661\u0660.5.3.0-24",
        "fc00::-64",
        "10.5.3.0-24&",
        "10.5.3.0-24&10.5.3.0-24",
        "10.5.3.0-24&fc00::-128",
        "10.5.3.0-24&fc00::1-64",
        "10.5.3.0-24&FC00::-64",
        "10.5.3.0-24&fc00:::-64",
        "10.5.3.0-24&fc00::-64&fc01::-64",
        "10.5.3.0-24/more",
    ],
)
def test_keys_of_nothing(name):
    assert KEYS.parse(key(name)) is None
    with pytest.raises(ConfigError, match=r"expected a key like /coreos\.com/network/subnets/10\.5\.3\.0-24$"):
        KEYS.lease(key(name), UDP)


def test_keys_elsewhere_are_none_of_ours():
    for elsewhere in (b"/coreos.com/network/subnets-old/10.5.3.0-24", b"10.5.3.0-24", b"/coreos.com/network/config"):
        assert KEYS.parse(elsewhere) is None
    assert KEYS.parse(key("10.5.3.0-24").replace(b"3", b"\xff")) is None


@given(SUBNETS4, SUBNETS6 | st.none())
def test_every_key_that_is_written_is_read(subnet, subnet6):
    assert KEYS.parse(KEYS.key((subnet, subnet6))) == (subnet, subnet6)


@given(st.binary(max_size=60) | st.text(alphabet="0123456789.:-&abcdef", max_size=45).map(str.encode))
def test_any_key_is_read_or_refused(name):
    found = KEYS.parse(KEYS.subnets + name)
    assert found is None or KEYS.parse(KEYS.key(found)) == found


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (Attributes(IPv4Address("192.168.78.1")), UDP),
        (
            Attributes(IPv4Address("192.168.78.1"), None, "vxlan", b'{"VNI":1,"VtepMAC":"c6:d2"}'),
            VXLAN,
        ),
        (
            Attributes(IPv4Address("192.168.78.1"), backend_data=b'{"udpbackend":1,"ipv6":true}'),
            b'{"PublicIP":"192.168.78.1","PublicIPv6":null,"BackendData":{"udpbackend":1,"ipv6":true}}',
        ),
        (
            Attributes(IPv4Address("1.2.3.4"), IPv6Address("2001:DB8::1"), "vxlan", b'{"a":1}', b'{"b":2}'),
            b'{"PublicIP":"1.2.3.4","PublicIPv6":"2001:db8::1","BackendType":"vxlan",%s}'
            % b'"BackendData":{"a":1},"BackendV6Data":{"b":2}',
        ),
        (
            Attributes(IPv4Address("1.2.3.4"), backend_type="host-gw"),
            b'{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"host-gw"}',
        ),
        (
            Attributes(IPv4Address("1.2.3.4"), backend_type="x", backend_data='{"a":"<b>&c\u2028é"}'.encode()),
            '{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"x",'
            '"BackendData":{"a":"\\u003cb\\u003e\\u0026c\\u2028é"}}'.encode(),
        ),
    ],
)
def test_values_as_go_writes_them(attributes, expected):
    assert encode(attributes) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (UDP, {}),
        (b'{"PublicIP":"192.168.78.1"}', {}),  # up to flannel 0.14
        (b'{"publicip":"192.168.78.1","BACKENDTYPE":"UDP"}', {}),
        (b'{"PublicIP":"1.1.1.1","PublicIP":"192.168.78.1","Hostname":"a","BackendType":null}', {}),
        (VXLAN, {"backend_type": "vxlan", "backend_data": b'{"VNI":1,"VtepMAC":"c6:d2"}'}),
        (b'{"PublicIP":"192.168.78.1","BackendType":"vxlan"}', {"backend_type": "vxlan"}),
        (
            b' {"PublicIP" : "192.168.78.1", "BackendData" : { "a" : 1.50 } , "BackendV6Data":[]}\n',
            {"backend_data": b'{ "a" : 1.50 }', "backend_v6_data": b"[]"},
        ),
        (
            b'{"PublicIP":"192.168.78.1","PublicIPv6":"2001:db8::1"}',
            {"public_ipv6": int(IPv6Address("2001:db8::1"))},
        ),
    ],
)
def test_values_are_read_as_go_reads_them(value, expected):
    said_nothing = {"backend_data": b"null", "backend_v6_data": b"null"}
    lease = KEYS.lease(key("10.5.84.0-24&fc00:0:0:39::-64"), value)
    subnet, subnet6 = subnets("10.5.84.0/24", "fc00:0:0:39::/64")
    assert lease == Lease(subnet, 0xC0A84E01, ipv6_subnet=subnet6, **{**said_nothing, **expected})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", "expected a lease as JSON: Input data was truncated"),
        (b"\xff", "expected a lease as JSON"),
        (b"null", "expected a lease as JSON"),
        (b"[" * 100_000, "expected a lease as JSON"),
        (b'{"a":' + b"[" * 100_000, "expected a lease as JSON"),
        (b"{}", "PublicIP: expected the IPv4 address of a host, got nothing"),
        (b'{"PublicIP":7}', "expected a lease as JSON: Expected `str | null`, got `int`"),
        (b'{"PublicIP":"10.5.1"}', 'PublicIP: expected the IPv4 address of a host, got "10.5.1"'),
        (b'{"PublicIP":"0.0.0.0"}', 'PublicIP: expected the IPv4 address of a host, got "0.0.0.0"'),
        (b'{"PublicIP":"127.0.0.1"}', 'PublicIP: expected the IPv4 address of a host, got "127.0.0.1"'),
        (b'{"PublicIP":"224.0.0.1"}', 'PublicIP: expected the IPv4 address of a host, got "224.0.0.1"'),
        (b'{"PublicIP":"255.255.255.255"}', 'PublicIP: expected the IPv4 address of a host, got "255.255.255.255"'),
        (b'{"PublicIP":"1.2.3.4","PublicIPv6":"1.2.3.4"}', 'PublicIPv6: expected an IPv6 address, got "1.2.3.4"'),
        (b'{"PublicIP":"1.2.3.4","PublicIPv6":"fe80::1%eth0"}', "PublicIPv6: expected an IPv6 address"),
    ],
)
def test_values_that_are_no_lease_are_named(value, expected):
    with pytest.raises(ConfigError) as caught:
        KEYS.lease(key("10.5.3.0-24"), value)
    text = str(caught.value)
    assert text.startswith(f"/coreos.com/network/subnets/10.5.3.0-24: {expected}")
    assert len(text) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    st.builds(
        Attributes,
        st.integers(2**24, 126 * 2**24).map(IPv4Address),
        st.none() | st.ip_addresses(v=6),
        st.sampled_from(["udp", "vxlan", "host-gw", "a<b>&\u2028"]),
        st.none() | JSON.map(lambda value: json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()),
    )
)
def test_what_is_written_is_read_again(attributes):
    lease = KEYS.lease(key("10.5.3.0-24"), encode(attributes))
    assert lease.public_address == attributes.public_ip
    assert lease.public_ipv6 == (int(attributes.public_ipv6) if attributes.public_ipv6 else None)
    assert lease.backend_type == attributes.backend_type
    assert json.loads(lease.backend_data) == json.loads(attributes.backend_data or b"null")


@given(st.binary() | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_value_is_read_or_refused(value):
    with suppress(ConfigError):
        assert KEYS.lease(key("10.5.3.0-24"), value).public_ip
