"""flannel's network configuration: what it accepts, its defaults, its messages; and the udp backend's options."""

import contextlib
import json
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from udpbackend.backends.udp_config import UdpOptions
from udpbackend.errors import ConfigError
from udpbackend.model import BackendConfig, IPv6Config, Prefix
from udpbackend.subnets.config import parse_config


def refused(text):
    with pytest.raises(ConfigError) as caught:
        parse_config(text if isinstance(text, str) else json.dumps(text))
    return str(caught.value)


def with_network(**more):
    return json.dumps({"Network": "10.5.0.0/16", **more})


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"Network": "10.3.0.0/16"}, ("10.3.0.0/16", 24, "10.3.1.0", "10.3.255.0")),
        ({"Network": "10.5.3.7/16"}, ("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")),
        ({"Network": "10.3.0.0/22"}, ("10.3.0.0/22", 24, "10.3.1.0", "10.3.3.0")),
        ({"Network": "10.3.0.0/23"}, ("10.3.0.0/23", 25, "10.3.0.128", "10.3.1.128")),
        ({"Network": "10.3.0.0/25"}, ("10.3.0.0/25", 27, "10.3.0.32", "10.3.0.96")),
        ({"Network": "10.3.0.0/28"}, ("10.3.0.0/28", 30, "10.3.0.4", "10.3.0.12")),
        ({"Network": "10.0.0.0/8", "SubnetLen": 28}, ("10.0.0.0/8", 28, "10.0.0.16", "10.255.255.240")),
        ({"Network": "10.5.0.0/16", "SubnetLen": 18}, ("10.5.0.0/16", 18, "10.5.64.0", "10.5.192.0")),
        ({"Network": "240.0.0.0/4"}, ("240.0.0.0/4", 24, "240.0.1.0", "255.255.255.0")),
        (
            {"Network": "10.3.0.0/16", "SubnetMin": "10.3.5.0", "SubnetMax": "10.3.8.0", "SubnetLen": 28},
            ("10.3.0.0/16", 28, "10.3.5.0", "10.3.8.0"),
        ),
        ({"Network": "10.3.0.0/16", "SubnetMin": "10.3.9.0", "SubnetMax": "10.3.8.0"}, "min above max is accepted"),
        ({"Network": "10.3.0.0/16", "SubnetMin": "0.0.0.0", "SubnetLen": 0}, ("10.3.0.0/16", 24, "10.3.1.0", None)),
    ],
)
def test_values_and_defaults(given_, expected):
    config = parse_config(json.dumps(given_))
    if isinstance(expected, tuple):
        network, subnet_len, lowest, highest = expected
        assert (config.network, config.subnet_len) == (Prefix.parse(network), subnet_len)
        assert config.subnet_min == IPv4Address(lowest)
        assert highest is None or config.subnet_max == IPv4Address(highest)
    assert config.backend == BackendConfig("udp", {})


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({}, "please define a correct Network parameter in the flannel config"),
        (None, "please define a correct Network parameter in the flannel config"),
        ({"Network": ""}, "please define a correct Network parameter in the flannel config"),
        ({"Network": "0.0.0.0/0"}, "please define a correct Network parameter in the flannel config"),
        ({"Network": "10.5.0.0/16", "SubnetLen": 31}, "SubnetLen must be less than /31"),
        ({"Network": "10.5.0.0/16", "SubnetLen": 17}, "network must be able to accommodate at least four subnets"),
        ({"Network": "10.5.0.0/29"}, "network is too small. Minimum useful network prefix is /28"),
        ({"Network": "10.5.0.0/16", "SubnetMin": "10.6.0.0"}, "SubnetMin is not in the range of the Network"),
        ({"Network": "10.5.0.0/16", "SubnetMax": "10.6.0.0"}, "SubnetMax is not in the range of the Network"),
        ({"Network": "10.5.0.0/16", "SubnetMin": "10.5.1.7"}, "SubnetMin is not on a SubnetLen boundary: 10.5.1.7"),
        ({"Network": "10.5.0.0/16", "SubnetMax": "10.5.1.7"}, "SubnetMax is not on a SubnetLen boundary: 10.5.1.7"),
        ({"Network": "10.5.0.0/16", "EnableIPv4": False}, "none defined stack: EnableIPv4 is false"),
    ],
)
def test_the_messages_are_flannels(given_, message):
    assert refused(given_).startswith(message)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({}, "Network parameter in the flannel config: expected a network, like 10.5.0.0/16, got none"),
        ({"Network": "0.0.0.0/0"}, "expected a network, like 10.5.0.0/16, got '0.0.0.0/0'"),
        ({"Network": "10.5.0.0/16", "SubnetLen": 31}, "SubnetLen must be less than /31: SubnetLen is 31"),
        ({"Network": "10.5.0.0/16", "SubnetLen": 17}, "subnets: SubnetLen is 17, expected 18 or more for 10.5.0.0/16"),
        ({"Network": "10.5.0.0/29"}, "Minimum useful network prefix is /28: got 10.5.0.0/29"),
        ({"Network": "10.5.0.0/16", "SubnetMin": "10.6.0.0"}, "of the Network: 10.6.0.0 is not in 10.5.0.0/16"),
    ],
)
def test_behind_flannels_messages_stand_the_values(given_, message):
    assert refused(given_).endswith(message)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"Network": 5}, "Network: expected a string, got 5"),
        ({"Network": "10.5.0.0"}, "Network: invalid CIDR '10.5.0.0'"),
        ({"Network": "fc00::/48"}, "Network: expected an IPv4 network, like 10.5.0.0/16, got 'fc00::/48'"),
        ({"Network": "10.5.0.0/16", "SubnetLen": "24"}, 'SubnetLen: expected a whole number, got "24"'),
        ({"Network": "10.5.0.0/16", "SubnetLen": 24.0}, "SubnetLen: expected a whole number, got 24.0"),
        ({"Network": "10.5.0.0/16", "SubnetLen": True}, "SubnetLen: expected a whole number, got true"),
        ({"Network": "10.5.0.0/16", "SubnetLen": -1}, "SubnetLen: expected a prefix length, got -1"),
        ({"Network": "10.5.0.0/16", "SubnetMin": "10.5.1"}, "SubnetMin: expected an IPv4 address, got '10.5.1'"),
        ({"Network": "10.5.0.0/16", "EnableIPv4": 1}, "EnableIPv4: expected true or false, got 1"),
        ({"Network": "10.5.0.0/16", "EnableNFTables": "no"}, 'EnableNFTables: expected true or false, got "no"'),
        ({"Network": "10.5.0.0/16", "EnableIPv6": 1}, "EnableIPv6: expected true or false, got 1"),
        (
            {"IPv6Network": "fc00::/48", "EnableIPv6": True, "EnableIPv4": False},
            "EnableIPv4: an IPv6-only network is not built, expected true or no such key: datagrams travel over IPv4",
        ),
        (["Network"], 'expected an object, got ["Network"]'),
        ("x" * 100, 'expected an object, got "' + "x" * 59 + "..."),
    ],
)
def test_wrong_values_are_named(given_, message):
    assert refused(json.dumps(given_)).startswith(message)


def with_ipv6(**more):
    return with_network(EnableIPv6=True, **more)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"IPv6Network": "fc00::/48"}, ("fc00::/48", 64, "fc00:0:0:1::", "fc00:0:0:ffff::")),
        ({"IPv6Network": "fc00::9/48"}, ("fc00::/48", 64, "fc00:0:0:1::", "fc00:0:0:ffff::")),
        ({"IPv6Network": "fc00::/62"}, ("fc00::/62", 64, "fc00:0:0:1::", "fc00:0:0:3::")),
        ({"IPv6Network": "fc00::/63"}, ("fc00::/63", 65, "fc00:0:0:0:8000::", "fc00:0:0:1:8000::")),
        ({"IPv6Network": "fc00::/124"}, ("fc00::/124", 126, "fc00::4", "fc00::c")),
        ({"IPv6Network": "fc00::/48", "IPv6SubnetLen": 50}, ("fc00::/48", 50, "fc00:0:0:4000::", "fc00:0:0:c000::")),
        (
            {"IPv6Network": "fc00::/48", "IPv6SubnetMin": "fc00:0:0:5::", "IPv6SubnetMax": "fc00:0:0:8::"},
            ("fc00::/48", 64, "fc00:0:0:5::", "fc00:0:0:8::"),
        ),
        ({"ipv6network": "fd00::/8", "IPV6SUBNETMIN": "::"}, ("fd00::/8", 64, "fd00:0:0:1::", "fdff:ffff:ffff:ffff::")),
    ],
)
def test_ipv6_values_and_defaults(given_, expected):
    config = parse_config(with_ipv6(**given_))
    network, subnet_len, lowest, highest = expected
    assert config.ipv6 == IPv6Config(Prefix.parse(network), subnet_len, IPv6Address(lowest), IPv6Address(highest))
    assert replace(config, ipv6=None) == parse_config(with_network()), "the IPv4 half is as it would be alone"


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({}, "please define a correct IPv6Network parameter in the flannel config"),
        ({"IPv6Network": ""}, "please define a correct IPv6Network parameter in the flannel config"),
        ({"IPv6Network": "::/0"}, "please define a correct IPv6Network parameter in the flannel config"),
        ({"IPv6Network": "fc00::/48", "IPv6SubnetLen": 127}, "SubnetLen must be less than /127"),
        (
            {"IPv6Network": "fc00::/48", "IPv6SubnetLen": 49},
            "network must be able to accommodate at least four subnets",
        ),
        ({"IPv6Network": "fc00::/125"}, "IPv6Network is too small. Minimum useful network prefix is /124"),
        (
            {"IPv6Network": "fc00::/48", "IPv6SubnetMin": "fc01::"},
            "IPv6SubnetMin is not in the range of the IPv6Network",
        ),
        (
            {"IPv6Network": "fc00::/48", "IPv6SubnetMax": "fc01::"},
            "IPv6SubnetMax is not in the range of the IPv6Network",
        ),
        (
            {"IPv6Network": "fc00::/48", "IPv6SubnetMin": "fc00::7"},
            "IPv6SubnetMin is not on a SubnetLen boundary: fc00::7",
        ),
        (
            {"IPv6Network": "fc00::/48", "IPv6SubnetMax": "fc00::7"},
            "IPv6SubnetMax is not on a SubnetLen boundary: fc00::7",
        ),
        ({"IPv6Network": "10.6.0.0/16"}, "IPv6Network: expected an IPv6 network, like fc00::/48, got '10.6.0.0/16'"),
        ({"IPv6Network": "fc00::"}, "IPv6Network: invalid CIDR 'fc00::'"),
        ({"IPv6Network": "fc00::%eth0/48"}, "IPv6Network: invalid CIDR 'fc00::%eth0/48'"),
        ({"IPv6Network": 6}, "IPv6Network: expected a string, got 6"),
        ({"IPv6Network": "fc00::/48", "IPv6SubnetLen": "64"}, 'IPv6SubnetLen: expected a whole number, got "64"'),
        ({"IPv6Network": "fc00::/48", "IPv6SubnetLen": -1}, "IPv6SubnetLen: expected a prefix length, got -1"),
        (
            {"IPv6Network": "fc00::/48", "IPv6SubnetMin": "10.5.0.0"},
            "IPv6SubnetMin: expected an IPv6 address, got '10.5.0.0'",
        ),
        (
            {"IPv6Network": "fc00::/48", "IPv6SubnetMin": "fc00::%1"},
            "IPv6SubnetMin: expected an IPv6 address, got 'fc00::%1'",
        ),
    ],
)
def test_ipv6_messages(given_, message):
    assert refused(with_ipv6(**given_)).startswith(message)


@pytest.mark.parametrize("more", [{}, {"EnableIPv6": False}, {"EnableIPv6": None}])
def test_without_enable_ipv6_its_other_keys_say_nothing(more):
    assert parse_config(with_network(IPv6Network="garbage", IPv6SubnetLen=500, **more)) == parse_config(with_network())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 column 1"),
        ('{\n "Network": "10.5.0.0/16",\n}', "line 3 column 1"),
        ('{"Network": "10.5.0.0/16"} x', "line 1 column 28: Extra data"),
        ('{"SubnetLen": NaN}', "NaN is not a JSON value"),
        ("\ufeff{}", "line 1 column 1: Unexpected UTF-8 BOM"),
        ("[" * 100_000, "recursion"),
        ("1" * 5000, "digits"),
    ],
)
def test_bad_json_is_located(text, message):
    found = refused(text)
    assert found.startswith("not valid JSON: ")
    assert message in found


def test_bytes_must_be_utf8():
    with pytest.raises(ConfigError, match="not UTF-8 at byte 1"):
        parse_config(b'"\xff"')


def test_keys_match_in_any_case_and_the_last_counts():
    config = parse_config('{"network": "10.1.0.0/16", "NETWORK": "10.2.0.0/16", "subnetlen": 25, "Unknown": [1]}')
    assert (config.network, config.subnet_len) == (Prefix.parse("10.2.0.0/16"), 25)
    repeated = '{"Network": "10.1.0.0/16", "network": "10.2.0.0/16", "Network": "10.3.0.0/16"}'
    assert parse_config(repeated).network == Prefix.parse("10.3.0.0/16")


def test_null_is_as_good_as_absent():
    config = parse_config(with_network(SubnetLen=None, SubnetMin=None, EnableIPv4=None, EnableIPv6=None))
    assert config == parse_config(with_network())
    assert not config.nftables
    assert parse_config(with_network(EnableNFTables=True)).nftables


@pytest.mark.parametrize("backend", [{"Type": "udp"}, {"type": "UDP", "Port": 9000, "Other": [1]}])
def test_the_backend_keeps_its_keys(backend):
    assert parse_config(with_network(Backend=backend)).backend == BackendConfig("udp", backend)


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ({"Type": 5}, "error decoding Backend property of config: Backend.Type: expected a string, got 5"),
        ("udp", 'error decoding Backend property of config: Backend: expected an object, got "udp"'),
    ],
)
def test_a_backend_must_be_an_object_with_a_type(backend, message):
    assert refused(with_network(Backend=backend)).startswith(message)


@pytest.mark.parametrize(("backend", "kind"), [({}, ""), (None, ""), ({"Type": "VXLAN"}, "vxlan")])
def test_the_type_is_for_the_backends_to_know(backend, kind):
    assert parse_config(with_network(Backend=backend)).backend.type == kind


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda j: st.dictionaries(st.text(), j)))
def test_any_json_is_a_configuration_or_a_config_error(value):
    for document in (
        value,
        {"Network": "10.5.0.0/16", "Backend": value},
        {"Network": value, "SubnetMin": value},
        {"Network": "10.5.0.0/16", "EnableIPv6": True, "IPv6Network": value, "IPv6SubnetMin": value},
    ):
        with contextlib.suppress(ConfigError):
            parse_config(json.dumps(document))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, UdpOptions(8285, None)),
        ({"Type": "udp", "Port": 9000}, UdpOptions(9000, None)),
        ({"port": 40000, "mtu": 1400}, UdpOptions(40000, 1400)),
        ({"Port": None, "MTU": None}, UdpOptions(8285, None)),
        ({"Port": 1, "MTU": 576}, UdpOptions(1, 576)),
        ({"Port": 65535, "MTU": 65507}, UdpOptions(65535, 65507)),
    ],
)
def test_udp_options(options, expected):
    assert UdpOptions.parse(BackendConfig("udp", options)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"Port": "8285"}, 'error decoding UDP backend config: Backend.Port: expected a whole number, got "8285"'),
        ({"MTU": True}, "error decoding UDP backend config: Backend.MTU: expected a whole number, got true"),
        ({"Port": 0}, "Backend.Port: expected a port number from 1 to 65535, got 0"),
        ({"Port": 65536}, "Backend.Port: expected a port number from 1 to 65535, got 65536"),
        ({"MTU": 575}, "Backend.MTU: expected 576 to 65507 bytes, got 575"),
        ({"MTU": 65508}, "Backend.MTU: expected 576 to 65507 bytes, got 65508"),
    ],
)
def test_wrong_udp_options_are_named(options, message):
    with pytest.raises(ConfigError) as caught:
        UdpOptions.parse(BackendConfig("udp", options))
    assert str(caught.value) == message
