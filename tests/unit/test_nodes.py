"""The text of a static registry: checked as a whole, each mistake named by its place."""

import contextlib
import json
import tracemalloc
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.errors import ConfigError
from udpbackend.subnets.nodes import parse_nodes


def node(name, public_ip, subnet):
    return {"Name": name, "PublicIP": public_ip, "Subnet": subnet}


ALPHA = node("alpha", "192.0.2.1", "10.5.1.0/24")
BETA = node("beta", "192.0.2.2", "10.5.2.0/24")
GAMMA = node("gamma", "192.0.2.3", "10.5.3.0/24")


IPV6 = {"EnableIPv6": True, "IPv6Network": "fd00:5::/48"}
ALPHA6 = ALPHA | {"IPv6Subnet": "fd00:5:0:1::/64"}
BETA6 = BETA | {"IPv6Subnet": "fd00:5:0:2::/64"}


def text(*nodes, **more):
    return json.dumps({"Network": "10.5.0.0/16", **more, "Nodes": nodes})


def refused(*nodes, **more):
    with pytest.raises(ConfigError) as caught:
        parse_nodes(text(*nodes, **more).encode())
    return str(caught.value)


def test_a_good_file_is_read_in_the_order_of_subnets():
    config, leases = parse_nodes(text(GAMMA, ALPHA, BETA | {"Rack": 7}).encode())
    assert str(config.network) == "10.5.0.0/16"
    assert [(lease.node, str(lease.public_address), str(lease.subnet)) for lease in leases] == [
        ("alpha", "192.0.2.1", "10.5.1.0/24"),
        ("beta", "192.0.2.2", "10.5.2.0/24"),
        ("gamma", "192.0.2.3", "10.5.3.0/24"),
    ]


def test_keys_match_in_any_case_and_names_are_optional():
    data = b"""{"network": "10.5.0.0/16", "nodes": [{"publicip": "192.0.2.1", "SUBNET": "10.5.1.0/30"},
                                                    {"publicIP": "192.0.2.2", "subnet": "10.5.128.0/17"}]}"""
    assert [str(lease.subnet) for lease in parse_nodes(data)[1]] == ["10.5.1.0/30", "10.5.128.0/17"]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([7], "Nodes[0]: expected an object, got 7"),
        ([{}], "Nodes[0].PublicIP: expected the IPv4 address of a host, got nothing"),
        ([ALPHA | {"PublicIP": 5}], "Nodes[0].PublicIP: expected a string, got 5"),
        ([ALPHA | {"PublicIP": "::1"}], "Nodes[0].PublicIP: expected the IPv4 address of a host, got '::1'"),
        ([ALPHA | {"PublicIP": "0.0.0.0"}], "Nodes[0].PublicIP: expected the IPv4 address of a host"),
        ([ALPHA | {"PublicIP": "127.0.0.1"}], "Nodes[0].PublicIP: expected the IPv4 address of a host"),
        ([ALPHA | {"PublicIP": "239.1.1.1"}], "Nodes[0].PublicIP: expected the IPv4 address of a host"),
        ([ALPHA | {"PublicIP": "10.5.9.9"}], "Nodes[0].PublicIP: 10.5.9.9 is inside the Network 10.5.0.0/16"),
        ([ALPHA | {"Name": 5}], "Nodes[0].Name: expected a string, got 5"),
        ([ALPHA, BETA | {"Subnet": ""}], "Nodes[1].Subnet: invalid CIDR ''"),
        ([ALPHA, BETA | {"Subnet": "10.5.2.1/24"}], "Nodes[1].Subnet: invalid CIDR '10.5.2.1/24': host bits are set"),
        ([ALPHA, BETA | {"Subnet": "10.5.2.0/31"}], "Nodes[1].Subnet: expected an IPv4 subnet of /30 or larger"),
        ([ALPHA, BETA | {"Subnet": "fc00::/24"}], "Nodes[1].Subnet: expected an IPv4 subnet of /30 or larger"),
        (
            [ALPHA, BETA | {"Subnet": "10.6.2.0/24"}],
            "Nodes[1].Subnet: 10.6.2.0/24 is not inside the Network 10.5.0.0/16",
        ),
        ([ALPHA, BETA | {"Subnet": "10.0.0.0/8"}], "Nodes[1].Subnet: 10.0.0.0/8 is not inside the Network 10.5.0.0/16"),
        ([ALPHA, BETA | {"Name": "alpha"}], 'Nodes[1].Name: "alpha" is that of Nodes[0] ("alpha") too'),
        ([ALPHA, BETA | {"PublicIP": "192.0.2.1"}], 'Nodes[1].PublicIP: 192.0.2.1 is that of Nodes[0] ("alpha") too'),
        (
            [ALPHA, BETA | {"Subnet": "10.5.1.0/24"}],
            'Nodes[1].Subnet: 10.5.1.0/24 is the subnet of Nodes[0] ("alpha") too, in the node "beta"',
        ),
        (
            [ALPHA, GAMMA, BETA | {"Subnet": "10.5.0.0/22"}],
            'Nodes[2].Subnet: 10.5.0.0/22 overlaps 10.5.1.0/24 of Nodes[0] ("alpha"), in the node "beta"',
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_place(nodes, message):
    assert refused(*nodes).startswith(message)


def test_a_node_may_have_an_ipv6_subnet_as_well():
    config, leases = parse_nodes(text(BETA6, ALPHA6, GAMMA, **IPV6).encode())
    assert str(config.ipv6.network) == "fd00:5::/48"
    assert [(lease.node, lease.ipv6_subnet and str(lease.ipv6_subnet)) for lease in leases] == [
        ("alpha", "fd00:5:0:1::/64"),
        ("beta", "fd00:5:0:2::/64"),
        ("gamma", None),
    ]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([ALPHA | {"IPv6Subnet": 6}], "Nodes[0].IPv6Subnet: expected a string, got 6"),
        ([ALPHA, BETA | {"IPv6Subnet": ""}], "Nodes[1].IPv6Subnet: invalid CIDR ''"),
        ([ALPHA, BETA | {"IPv6Subnet": "fd00:5::1/64"}], "Nodes[1].IPv6Subnet: invalid CIDR 'fd00:5::1/64': host bits"),
        (
            [ALPHA, BETA | {"IPv6Subnet": "fd00:5::/127"}],
            "Nodes[1].IPv6Subnet: expected an IPv6 subnet of /126 or larger, got 'fd00:5::/127'",
        ),
        (
            [ALPHA, BETA | {"IPv6Subnet": "10.5.2.0/24"}],
            "Nodes[1].IPv6Subnet: expected an IPv6 subnet of /126 or larger, got '10.5.2.0/24'",
        ),
        (
            [ALPHA, BETA | {"IPv6Subnet": "fd00:6::/64"}],
            "Nodes[1].IPv6Subnet: fd00:6::/64 is not inside the IPv6Network fd00:5::/48",
        ),
        (
            [ALPHA6, BETA | {"IPv6Subnet": "fd00:5:0:1::/64"}],
            'Nodes[1].IPv6Subnet: fd00:5:0:1::/64 is the subnet of Nodes[0] ("alpha") too, in the node "beta"',
        ),
        (
            [GAMMA, ALPHA6, BETA | {"IPv6Subnet": "fd00:5::/62"}],
            'Nodes[2].IPv6Subnet: fd00:5::/62 overlaps fd00:5:0:1::/64 of Nodes[1] ("alpha"), in the node "beta"',
        ),
        ([{"Name": "alpha", "PublicIP": "192.0.2.1", "IPv6Subnet": "fd00:5::/64"}], "Nodes[0].Subnet: invalid CIDR ''"),
    ],
)
def test_what_is_wrong_with_an_ipv6_subnet_is_named_by_its_place(nodes, message):
    assert refused(*nodes, **IPV6).startswith(message)


def test_an_ipv6_subnet_needs_an_ipv6_network():
    message = "Nodes[0].IPv6Subnet: the network has no IPv6: expected no such key, or EnableIPv6 and an IPv6Network"
    assert refused(ALPHA6).startswith(message)
    assert parse_nodes(text(ALPHA | {"IPv6Subnet": None}).encode())[1][0].ipv6_subnet is None


def test_a_node_may_have_a_public_ipv6_and_another_backend():
    nodes = (ALPHA | {"PublicIPv6": "2001:DB8::1"}, BETA | {"publicipv6": None, "BackendType": "Vxlan"}, GAMMA)
    _, leases = parse_nodes(text(*nodes, Backend={"Type": "Host-GW"}).encode())
    assert [lease.public_ipv6 for lease in leases] == [int(IPv6Address("2001:db8::1")), None, None]
    assert [lease.backend_type for lease in leases] == ["host-gw", "vxlan", "host-gw"]
    assert {lease.backend_type for lease in parse_nodes(text(ALPHA).encode())[1]} == {"udp"}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        *(
            (
                [ALPHA | {"PublicIPv6": wrong}],
                f"Nodes[0].PublicIPv6: expected the IPv6 address of a host, got '{wrong}'",
            )
            for wrong in ("192.0.2.1", "x", "::", "::1", "fe80::1", "fe80::1%eth0", "ff02::1", "::ffff:192.0.2.1")
        ),
        ([ALPHA | {"PublicIPv6": ""}], "Nodes[0].PublicIPv6: expected the IPv6 address of a host, got nothing"),
        ([ALPHA | {"PublicIPv6": 6}], "Nodes[0].PublicIPv6: expected a string, got 6"),
        ([ALPHA | {"PublicIPv6": "fd00:5::9"}], "Nodes[0].PublicIPv6: fd00:5::9 is inside the IPv6Network fd00:5::/48"),
        (
            [ALPHA | {"PublicIPv6": "2001:db8::1"}, BETA | {"PublicIPv6": "2001:db8:0::1"}],
            'Nodes[1].PublicIPv6: 2001:db8::1 is that of Nodes[0] ("alpha") too',
        ),
        ([ALPHA | {"BackendType": 1}], "Nodes[0].BackendType: expected a string, got 1"),
    ],
)
def test_what_is_wrong_with_a_public_ipv6_is_named_by_its_place(nodes, message):
    assert refused(*nodes, **IPV6).startswith(message)


def test_nodes_must_be_a_list():
    for value, got in (("null", "null"), ("{}", "{}"), ('"x"', '"x"')):
        with pytest.raises(ConfigError, match=r"Nodes: expected a list of .* objects, got " + got):
            parse_nodes(f'{{"Network": "10.5.0.0/16", "Nodes": {value}}}'.encode())
    with pytest.raises(ConfigError, match="got no such key"):
        parse_nodes(b'{"Network": "10.5.0.0/16"}')


def test_the_configuration_is_checked_too():
    assert refused(ALPHA, Backend={"Type": 5}).startswith("error decoding Backend property of config")


@given(
    st.lists(
        st.builds(
            lambda address, bits: str(ip_network((address & ~((1 << (32 - bits)) - 1), bits))),
            st.integers(0x0A050000, 0x0A0500FF),
            st.integers(24, 30),
        ),
        max_size=8,
    )
)
def test_overlaps_are_found_as_comparing_all_pairs_finds_them(subnets):
    nodes = [{"PublicIP": f"192.0.2.{i}", "Subnet": subnet} for i, subnet in enumerate(subnets, 1)]
    networks = [ip_network(subnet) for subnet in subnets]
    clash = {(i, j) for i, a in enumerate(networks) for j, b in enumerate(networks) if i < j and a.overlaps(b)}
    if not clash:
        assert len(parse_nodes(text(*nodes).encode())[1]) == len(nodes)
        return
    message = refused(*nodes)
    assert any(message.startswith(f"Nodes[{j}].Subnet: ") and f"of Nodes[{i}]" in message for i, j in clash)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda j: st.dictionaries(st.text(), j) | st.lists(j)))
def test_any_json_is_a_registry_or_a_config_error(value):
    for document in (
        {"Nodes": value},
        {"Nodes": [value]},
        {"Nodes": [ALPHA | {"Subnet": value}]},
        {"Nodes": [ALPHA | {"IPv6Subnet": value}]},
        {"Nodes": [ALPHA | {"PublicIPv6": value}]},
    ):
        for more in ({}, IPV6):
            with contextlib.suppress(ConfigError):
                parse_nodes(json.dumps({"Network": "10.5.0.0/16"} | more | document).encode())


def test_a_large_network_is_taken():
    nodes = [
        node(f"n{i}", str(IPv4Address(0xC6000000 + i)), f"10.{i >> 8}.{i & 255}.0/24")
        | {"IPv6Subnet": f"fd00:5:0:{i:x}::/64"}
        for i in range(65536)
    ]
    data = text(*nodes, Network="10.0.0.0/8", **IPV6).encode()
    assert len(parse_nodes(data)[1]) == 65536


def test_what_is_known_already_is_the_same_object_and_no_second_copy_on_the_way():
    nodes = [node(f"n{i}", f"192.0.{i >> 8}.{i & 255}", f"10.5.{i >> 6}.{(i & 63) * 4}/30") for i in range(2048)]
    nodes[7]["PublicIP"] = "198.51.100.1"
    first, edited = text(*nodes[::-1]).encode(), text(*nodes[:7], nodes[7] | {"PublicIP": "198.51.100.2"}, *nodes[8:])
    tracemalloc.start()
    try:
        _, known = parse_nodes(first)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        _, leases = parse_nodes(edited.encode(), known)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [i for i, lease in enumerate(leases) if lease is not known[i]] == [7]
    assert str(leases[7].public_address) == "198.51.100.2"
    assert peak < 2 * held
