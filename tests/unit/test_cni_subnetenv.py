"""subnet.env as the CNI plugin reads it: flannel's forms, what is missing, what is wrong."""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.cni import subnetenv
from udpbackend.model import Prefix
from udpbackend.subnets.envfile import render

V4 = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n"
V6 = "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\n"
REST = "FLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n"
ALL_MISSING = (
    "missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"
)


def write(folder, text):
    path = folder / "subnet.env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def shares(env):
    return env.networks, env.subnet, env.networks6, env.subnet6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (V4, (["10.1.0.0/16"], "10.1.17.0/24", [], "")),
        (V6, ([], "", ["fc00::/48"], "fc00::/64")),
        (V4 + V6, (["10.1.0.0/16"], "10.1.17.0/24", ["fc00::/48"], "fc00::/64")),
        (
            V4.replace("/16", "/16,192.168.0.0/16,10.1.7.7/16"),
            (["10.1.0.0/16", "192.168.0.0/16"], "10.1.17.0/24", [], ""),
        ),
        (V4.replace("\n", "\r\n"), (["10.1.0.0/16"], "10.1.17.0/24", [], "")),
        ("\n# why\nFOO=bar\nFLANNEL_NETWORK\tx\n" + V4, (["10.1.0.0/16"], "10.1.17.0/24", [], "")),
        ("FLANNEL_SUBNET=10.9.9.1/24\n" + V4, (["10.1.0.0/16"], "10.1.17.0/24", [], "")),
        (V6.replace("fc00::1", "FC00:0:0:0::1"), ([], "", ["fc00::/48"], "fc00::/64")),
    ],
)
def test_a_whole_file(tmp_path, text, expected):
    env = subnetenv.load(write(tmp_path, "\n" + text + REST))
    assert shares(env) == expected
    assert (env.mtu, env.ip_masq) == (1472, True)


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("false", False), ("TRUE", False), ("", False)])
def test_only_the_word_true_is_true(value, expected):
    assert subnetenv.parse(f"FLANNEL_IPMASQ={value}").ip_masq is expected


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("foo=bar", ALL_MISSING),
        ("", ALL_MISSING),
        (V4, "missing FLANNEL_MTU, FLANNEL_IPMASQ"),
        (V6 + "FLANNEL_MTU=1\n", "missing FLANNEL_IPMASQ"),
        (REST + "FLANNEL_NETWORK=10.1.0.0/16", "missing FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET"),
        (REST + "FLANNEL_IPV6_SUBNET=fc00::/64", "missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK"),
        (' FLANNEL_MTU=1\n"FLANNEL_MTU"=1\n' + V4, "missing FLANNEL_MTU, FLANNEL_IPMASQ"),
    ],
)
def test_what_is_missing_is_named(tmp_path, text, missing):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match="is missing") as caught:
        subnetenv.load(path)
    assert str(caught.value) == f"{path} is {missing}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("FLANNEL_NETWORK=", "invalid CIDR address: "),
        ("FLANNEL_NETWORK=10.1.0.0", "invalid CIDR address: 10.1.0.0"),
        ("FLANNEL_NETWORK=10.1.0.0/16,", "invalid CIDR address: "),
        ("FLANNEL_NETWORK='10.1.0.0/16'", "invalid CIDR address: '10.1.0.0/16'"),
        ("FLANNEL_SUBNET=10.1.0.0/255.255.0.0", "invalid CIDR address: 10.1.0.0/255.255.0.0"),
        ("FLANNEL_SUBNET=10.1.0.0/33", "invalid CIDR address: 10.1.0.0/33"),
        ("FLANNEL_SUBNET=10.1.0.0/08", "invalid CIDR address: 10.1.0.0/08"),
        ("FLANNEL_SUBNET=10.1.0.0/²", "invalid CIDR address: 10.1.0.0/²"),
        ("FLANNEL_IPV6_SUBNET=fe80::1%eth0/64", "invalid CIDR address: fe80::1%eth0/64"),
        ("FLANNEL_IPV6_NETWORK=fc00::/129", "invalid CIDR address: fc00::/129"),
        ("FLANNEL_MTU=", 'strconv.ParseUint: parsing "": invalid syntax'),
        ("FLANNEL_MTU=-1", 'strconv.ParseUint: parsing "-1": invalid syntax'),
        ("FLANNEL_MTU=1_0", 'strconv.ParseUint: parsing "1_0": invalid syntax'),
        ("FLANNEL_MTU=4294967296", 'strconv.ParseUint: parsing "4294967296": value out of range'),
        ("FLANNEL_MTU=" + "9" * 5000, "value out of range"),
        ("FLANNEL_MTU", "FLANNEL_MTU has no value"),
    ],
)
def test_a_wrong_value_is_named(line, words):
    with pytest.raises(ValueError, match=re.escape(words) + "$"):
        subnetenv.parse(V4 + line)


@pytest.mark.parametrize(("name", "reason"), [("none", "no such file or directory"), ("", "is a directory")])
def test_a_file_that_cannot_be_read(tmp_path, name, reason):
    path = str(tmp_path / name)
    with pytest.raises(ValueError, match=f"^open {path}: {reason}$"):
        subnetenv.load(path)


def test_it_reads_what_the_daemon_writes():
    text = render(
        Prefix.parse("10.5.0.0/16"),
        Prefix.parse("10.5.3.0/24"),
        1450,
        ip_masq=False,
        ipv6=(Prefix.parse("fc00::/48"), Prefix.parse("fc00:0:0:39::/64")),
    )
    env = subnetenv.parse(text)
    assert env.missing() == []
    assert shares(env) == (["10.5.0.0/16"], "10.5.3.0/24", ["fc00::/48"], "fc00:0:0:39::/64")
    assert (env.mtu, env.ip_masq) == (1450, False)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        env = subnetenv.parse(text)
    except ValueError:
        return
    assert env.missing() or (env.mtu is not None and env.networks + env.networks6)


@given(st.sampled_from(sorted(subnetenv.KEYS)), st.text())
def test_any_value_is_read_or_refused_in_words(key, value):
    """A network that is taken is one in Python's eyes too, and is printed with its own address."""
    try:
        env = subnetenv.parse(f"{key}={value}")
    except ValueError as error:
        assert str(error)  # noqa: PT017 that there is one is no fault
        return
    for network in (*env.networks, *env.networks6, *filter(None, (env.subnet, env.subnet6))):
        assert str(ipaddress.ip_network(network)) == network


@given(st.ip_addresses(), st.data())
def test_a_subnet_is_masked(address, data):
    bits = data.draw(st.integers(0, address.max_prefixlen))
    env = subnetenv.parse(f"FLANNEL_SUBNET={address}/{bits}")
    assert ipaddress.ip_network(env.subnet) == ipaddress.ip_network(f"{address}/{bits}", strict=False)
