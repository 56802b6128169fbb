"""Wrong flags, wrong environment, wrong registry: a start that ends at once, with one line that names the value."""

import json

import pytest
from refusal import refusal, without

from bench.lab.daemon import Overlay
from bench.lab.topology import Lab

USAGE = {
    "unknown flag": ({}, ("--ifaces=eth0",), ("unknown flag --ifaces", "did you mean --iface?")),
    "stray word": ({}, ("eth0",), ("unexpected argument 'eth0'", "expected a flag")),
    "flag without its value": ({}, ("--public-ip",), ("--public-ip", "expected a value (IP)")),
    "not an address": ({"public_ip": "10.5.1"}, (), ("--public-ip", "'10.5.1'", "expected an IPv4 address")),
    "not a port": ({"healthz_port": 99999}, (), ("--healthz-port", "'99999'", "0 (off) to 65535")),
    "not a choice": ({"source_check": "maybe"}, (), ("--source-check", "'maybe'", "expected subnet, peer or off")),
    "not a pattern": ({"iface_regex": "eth["}, (), ("--iface-regex", "'eth['", "expected a regular expression")),
    "not a URL": ({}, ("--etcd-endpoints=192.0.2.1",), ("--etcd-endpoints", "'192.0.2.1'", "expected URLs")),
    "two registries": ({}, ("--kube-subnet-mgr",), ("--static-subnets and --kube-subnet-mgr", "expected one of them")),
}


@pytest.fixture(scope="module")
def idle(able):
    """Two hosts without a daemon. No test leaves anything on them, which each of them proves."""
    with Lab() as lab, Overlay(lab) as overlay:
        yield overlay


@pytest.mark.parametrize(("flags", "extra", "words"), USAGE.values(), ids=USAGE)
def test_wrong_usage(idle, flags, extra, words):
    said = refusal(idle, idle.lab.hosts[0], status=2, extra=extra, **flags)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("FLANNELD_IP_MASQ", "maybe", ("FLANNELD_IP_MASQ", "'maybe'", "expected true or false")),
        ("FLANNELD_HEALTHZ_PORT", "http", ("FLANNELD_HEALTHZ_PORT", "'http'", "expected a port number")),
    ],
)
def test_wrong_environment(idle, monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    said = refusal(idle, idle.lab.hosts[0], status=2)
    assert all(word in said for word in words), said


def nodes(*rows, network="10.5.0.0/16", **more):
    """A registry; each row is a public IP and a subnet."""
    listed = [{"Name": f"n{i}", "PublicIP": ip, "Subnet": subnet} for i, (ip, subnet) in enumerate(rows)]
    return json.dumps({"Network": network, "Backend": {"Type": "udp"}, "Nodes": listed, **more})


A, B = ("192.168.77.1", "10.5.1.0/24"), ("192.168.77.2", "10.5.2.0/24")
REGISTRIES = {
    "empty": ("", ("not valid JSON: line 1 column 1", "Expecting value")),
    "cut off": (nodes(A, B)[:100], ("not valid JSON: line 1 column",)),
    "a comma too many": ('{\n  "Network": "10.5.0.0/16",,\n}\n', ("subnets.json: not valid JSON: line 2 column 28",)),
    "not UTF-8": (b'{"Network": "\xff"}', ("not UTF-8 at byte 13",)),
    "no nodes": ('{"Network": "10.5.0.0/16"}', ("Nodes: expected a list", "no such key")),
    "no network": ('{"Nodes": []}', ("please define a correct Network",)),
    "wrong type": (nodes(A, Backend={"Type": "udp", "Port": "8285"}), ("Backend", "Port", '"8285"', "whole number")),
    "wrong port": (nodes(A, Backend={"Type": "udp", "Port": 70000}), ("Backend.Port", "70000", "1 to 65535")),
    "unknown backend": (nodes(A, Backend={"Type": "ipip"}), ("unknown backend type: ipip", "Backend.Type", '"udp"')),
    "overlapping subnets": (
        nodes(A, ("192.168.77.2", "10.5.0.0/22")),
        ("Nodes[1].Subnet: 10.5.0.0/22 overlaps 10.5.1.0/24", 'Nodes[0] ("n0")'),
    ),
    "a subnet outside": (
        nodes(A, ("192.168.77.2", "10.6.2.0/24")),
        ("Nodes[1].Subnet: 10.6.2.0/24 is not inside the Network 10.5.0.0/16",),
    ),
    "one subnet twice": (
        nodes(A, ("192.168.77.2", "10.5.1.0/24")),
        ("Nodes[1].Subnet: 10.5.1.0/24 is the subnet of Nodes[0]", "too"),
    ),
    "one public IP twice": (
        nodes(A, ("192.168.77.1", "10.5.2.0/24")),
        ("Nodes[1].PublicIP: 192.168.77.1 is that of Nodes[0]", "too"),
    ),
    "a peer inside the network": (
        nodes(A, ("10.5.200.1", "10.5.2.0/24")),
        ("Nodes[1].PublicIP: 10.5.200.1 is inside the Network 10.5.0.0/16",),
    ),
    "this host is missing": (nodes(B), ("this host (192.168.77.1) is not among the nodes of", "--public-ip")),
}


@pytest.mark.parametrize(("content", "words"), REGISTRIES.values(), ids=REGISTRIES)
def test_wrong_registry(idle, tmp_path, content, words):
    file = tmp_path / "subnets.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    said = refusal(idle, idle.lab.hosts[0], static_subnets=file)
    assert all(word in said for word in words), said


def test_this_host_inside_the_network(idle, tmp_path):
    """Peers know it by another address, so only the host itself can see that its datagrams would go in circles."""
    file = tmp_path / "subnets.json"
    file.write_text(nodes(("203.0.113.1", "192.168.9.0/24"), network="192.168.0.0/16"))
    said = refusal(idle, idle.lab.hosts[0], static_subnets=file, public_ip="203.0.113.1")
    assert "Network 192.168.0.0/16 contains this host's address 192.168.77.1" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody", ("none has the Name 'nobody'", "--node-name")),
        (
            "n1",
            ("node 'n1'", "has the PublicIP 192.168.77.2", "this host has 192.168.77.1", "--public-ip=192.168.77.2"),
        ),
    ],
)
def test_wrong_node_name(idle, tmp_path, name, words):
    file = tmp_path / "subnets.json"
    file.write_text(nodes(A, B))
    said = refusal(idle, idle.lab.hosts[0], static_subnets=file, node_name=name)
    assert all(word in said for word in (str(file), *words)), said


def test_missing_registry(idle, tmp_path):
    file = tmp_path / "nothing.json"
    assert refusal(idle, idle.lab.hosts[0], static_subnets=file) == f"cannot read {file}: No such file or directory"


def test_a_registry_that_is_no_file(idle, tmp_path):
    said = refusal(idle, idle.lab.hosts[0], static_subnets=tmp_path)
    assert said == f"cannot read {tmp_path}: Is a directory"


def test_a_registry_that_may_not_be_read(idle, tmp_path):
    file = tmp_path / "subnets.json"
    file.write_text(nodes(A, B))
    file.chmod(0)
    tmp_path.chmod(0o755)
    said = refusal(idle, idle.lab.hosts[0], *without("dac_override", "dac_read_search"), static_subnets=file)
    assert said == f"cannot read {file}: Permission denied"
