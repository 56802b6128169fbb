"""A node's JSON as a lease: flannel's nodes, nodes that are none, and any nonsense a node may hold."""

import logging
from ipaddress import IPv4Address, IPv6Address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_api import joined, node

from udpbackend.errors import ConfigError
from udpbackend.model import Lease
from udpbackend.subnets.config import parse_config
from udpbackend.subnets.kube.annotations import Names
from udpbackend.subnets.kube.node import Node, own_lease, read
from udpbackend.subnets.kube.view import View

NAMES = Names.under("flannel.alpha.coreos.com")
CONFIG = parse_config('{"Network": "10.244.0.0/16"}')
DUAL = parse_config('{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10::/48"}')
SIX = "fd00:10:0:2::/64"


def decoded(it):
    return msgspec.json.decode(msgspec.json.encode(it), type=Node)


def reading(it, config=CONFIG):
    return read(decoded(it), NAMES, config)


def test_a_udp_node():
    found = reading(joined("b", "10.244.2.0/24", "192.0.2.2", created="2026-05-04T03:02:01Z"))
    assert (found.problem, found.since) == ("", "2026-05-04T03:02:01Z")
    lease = found.lease
    assert (str(lease.subnet), lease.ipv6_subnet, lease.node) == ("10.244.2.0/24", None, "b")
    assert (lease.public_address, lease.public_ipv6) == (IPv4Address("192.0.2.2"), None)
    assert (lease.backend_type, lease.backend_data) == ("udp", b"null")


def test_a_vxlan_node():
    data = '{"VNI":1,"VtepMAC":"c6:d2:3a:00:00:01"}'
    lease = reading(joined("b", "10.244.2.0/24", "192.0.2.2", backend_type="VXLAN", backend_data=data)).lease
    assert (lease.backend_type, lease.backend_data) == ("vxlan", data.encode())


def test_a_node_without_backend_data():
    it = joined("b", "10.244.2.0/24", "192.0.2.2")
    del it["metadata"]["annotations"][NAMES.backend_data], it["metadata"]["annotations"][NAMES.backend_type]
    lease = reading(it).lease
    assert (lease.backend_type, lease.backend_data) == ("udp", b"null")


def test_a_dual_stack_node_over_both():
    it = joined("b", "10.244.2.0/24", "192.0.2.2", SIX, backend_v6_data='{"x":1}', public_ipv6="2001:db8::2")
    lease = reading(it, DUAL).lease
    assert str(lease.ipv6_subnet) == SIX
    assert (lease.public_ipv6, lease.backend_v6_data) == (int(IPv6Address("2001:db8::2")), b'{"x":1}')
    assert reading(it).lease.ipv6_subnet is None, "a network without IPv6 has none of it"


def test_the_order_of_podcidrs_is_free():
    it = joined("b", SIX, "192.0.2.2", "10.244.2.0/24")
    assert str(reading(it, DUAL).lease.subnet) == "10.244.2.0/24"


def test_podcidr_alone_is_enough_and_its_host_bits_are_cleared():
    it = joined("b", "10.244.2.7/24", "192.0.2.2")
    del it["spec"]["podCIDRs"]
    assert str(reading(it).lease.subnet) == "10.244.2.0/24"


@pytest.mark.parametrize("managed", [None, "", "false", "True"])
def test_a_node_that_is_not_flannels_is_none_at_all(managed):
    it = joined("b", "10.244.2.0/24", "192.0.2.2")
    it["metadata"]["annotations"][NAMES.managed] = managed or ""
    if managed is None:
        del it["metadata"]["annotations"]
    assert reading(it) is None


@pytest.mark.parametrize(
    ("cidr", "public_ip", "problem"),
    [
        ("10.244.2.0/24", "", "annotation {ip}: expected an IPv4 address, got nothing"),
        ("10.244.2.0/24", "192.0.2", "annotation {ip}: expected an IPv4 address, got '192.0.2'"),
        ("10.244.2.0/24", "2001:db8::2", "annotation {ip}: expected an IPv4 address, got '2001:db8::2'"),
        ("10.244.2.0/24", "127.0.0.1", "annotation {ip}: expected the IPv4 address of a host, got 127.0.0.1"),
        (
            "10.244.2.0/24",
            "10.244.2.1",
            "annotation {ip}: 10.244.2.1 is inside the Network 10.244.0.0/16, expected one outside of it",
        ),
        ("10.244.2.0", "192.0.2.2", "node \"b\" podCIDR: invalid CIDR '10.244.2.0'"),
        (
            "10.0.0.0/8",
            "192.0.2.2",
            'subnet "10.244.0.0/16" specified in the flannel net config doesn\'t contain "10.0',
        ),
    ],
)
def test_a_broken_node_has_a_problem(cidr, public_ip, problem):
    found = reading(joined("b", cidr, public_ip))
    assert found.lease is None
    assert found.problem.startswith(problem.format(ip=NAMES.public_ip))


@pytest.mark.parametrize(("six", "more"), [("fd00:99::/64", {}), (SIX, {"public_ipv6": "192.0.2.2"})])
def test_a_broken_ipv6_half_costs_only_that_half(six, more):
    it = joined("b", "10.244.2.0/24", "192.0.2.2", six, **more)
    found = reading(it, DUAL)
    assert str(found.lease.subnet) == "10.244.2.0/24"
    assert (found.lease.ipv6_subnet, found.lease.public_ipv6) == (None, None)
    assert found.problem
    assert not reading(it).problem


texts = st.text(max_size=12) | st.sampled_from(["10.244.2.0/24", SIX, "192.0.2.2", "true", "null", "0.0.0.0/0"])
anything = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"name": st.text(max_size=5)},
            optional={
                "annotations": st.none()
                | st.dictionaries(st.sampled_from([getattr(NAMES, it) for it in NAMES.__struct_fields__]), texts)
            },
        )
    },
    optional={
        "spec": st.fixed_dictionaries(
            {}, optional={"podCIDR": texts, "podCIDRs": st.none() | st.lists(texts, max_size=3)}
        ),
        "status": st.dictionaries(st.text(max_size=3), st.integers()),
    },
)


@given(anything, st.sampled_from([CONFIG, DUAL]))
def test_any_node_is_read_without_an_exception(it, config):
    found = reading(it, config)
    if found is not None and found.lease is not None:
        assert config.network.contains(found.lease.subnet)
        assert not config.network.holds(found.lease.public_address)
    else:
        assert found is None or found.problem
    try:
        lease = own_lease(decoded(it), NAMES, config, IPv4Address("192.0.2.1"))
    except ConfigError:
        pass
    else:
        assert config.network.contains(lease.subnet)


async def test_a_view_tells_of_changes_alone(caplog):
    caplog.set_level(logging.INFO, "udpbackend.subnets.kube")
    own, b = decoded(node("a", "10.244.1.0/24")), joined("b", "10.244.2.0/24", "192.0.2.2")
    lease = own_lease(own, NAMES, CONFIG, IPv4Address("192.0.2.1"))
    view = View(own, NAMES, CONFIG)
    view.replace(view.read([own, decoded(b)]))
    assert view.changed.is_set()
    assert [it.node for it in await view.leases(lease)] == ["a", "b"]
    view.changed.clear()
    view.replace(view.read([decoded({**b, "metadata": {**b["metadata"], "resourceVersion": "9"}}), own]))
    view.put(decoded({**b, "status": {"conditions": [1]}}))
    view.put(decoded(node("stranger", "10.244.9.0/24")))
    view.remove("nobody")
    assert not view.changed.is_set()
    assert await view.leases(lease) is None
    view.remove("b")
    assert view.changed.is_set()
    assert await view.leases(lease) == (lease,)
    assert isinstance(lease, Lease)
    assert not caplog.records
