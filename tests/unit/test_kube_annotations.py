"""Annotation names under any prefix, what our node is to say, and that only who uses Kubernetes loads it."""

import subprocess
import sys
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.errors import ConfigError, UsageError
from udpbackend.model import Attributes
from udpbackend.subnets.kube.annotations import Names, address_of

FLANNEL = Names.under("flannel.alpha.coreos.com")
FORMAT = "subnet/kube: prefix must be in a format: fqdn/[0-9a-z-_]*"
UDP = Attributes(IPv4Address("192.0.2.1"))


@pytest.mark.parametrize(
    ("prefix", "backend_type"),
    [
        ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/backend-type"),
        ("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/backend-type"),
        ("flannel.alpha.coreos.com/prefix", "flannel.alpha.coreos.com/prefix-backend-type"),
        ("flannel.alpha.coreos.com/prefix-", "flannel.alpha.coreos.com/prefix-backend-type"),
        ("org.com", "org.com/backend-type"),
        ("org9.com", "org9.com/backend-type"),
        ("org.com/9", "org.com/9-backend-type"),
        ("a_b.c-d/e_f", "a_b.c-d/e_f-backend-type"),
    ],
)
def test_a_prefix_is_completed_as_flannel_does(prefix, backend_type):
    assert Names.under(prefix).backend_type == backend_type


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("org", FORMAT),
        ("org/", FORMAT),
        ("org/prefix", FORMAT),
        ("org.COM", FORMAT),
        ("org.com/PREFIX", FORMAT),
        ("", FORMAT),
        ("org.com/a b", FORMAT),
        ("Org org.com", FORMAT),
        ("org.com\n", FORMAT),
        ("org.com/a/b", "subnet/kube: prefix can contain at most single slash"),
    ],
)
def test_a_prefix_that_is_none_is_refused(prefix, reason):
    with pytest.raises(UsageError) as caught:
        Names.under(prefix)
    assert str(caught.value) == f"{reason}: got {prefix!r} (--kube-annotation-prefix)"


def test_all_names():
    assert sorted(FLANNEL.__getattribute__(field) for field in FLANNEL.__struct_fields__) == [
        f"flannel.alpha.coreos.com/{name}"
        for name in (
            "backend-data",
            "backend-type",
            "backend-v6-data",
            "kube-subnet-manager",
            "node-public-ip",
            "node-public-ipv6",
            "public-ip",
            "public-ip-overwrite",
            "public-ipv6",
            "public-ipv6-overwrite",
        )
    ]


@given(st.text(max_size=40))
def test_any_prefix_makes_names_or_a_usage_error(prefix):
    with suppress(UsageError):
        names = Names.under(prefix)
        assert names.public_ip.startswith(prefix)
        assert names.public_ip.count("/") == 1


@given(
    st.dictionaries(st.sampled_from([getattr(FLANNEL, it) for it in FLANNEL.__struct_fields__]), st.text(max_size=8))
)
def test_once_written_nothing_is_missing(said):
    with suppress(ConfigError):  # an overwrite that is no address
        missing = FLANNEL.missing(UDP, said)
        assert not FLANNEL.missing(UDP, {**said, **missing})
        assert all(said.get(name) != text for name, text in missing.items())


def test_an_empty_annotation_is_none():
    assert address_of(IPv4Address, {"x": ""}, "x") is None
    assert address_of(IPv4Address, {}, "x") is None


def test_an_address_with_a_scope_is_none_of_a_node():
    with pytest.raises(ConfigError, match="annotation x: expected an IPv6 address, got 'fe80::1%eth0'"):
        address_of(IPv6Address, {"x": "fe80::1%eth0"}, "x")


def test_whoever_does_not_use_kubernetes_does_not_load_it():
    look = (
        "import sys, udpbackend.daemon, udpbackend.subnets.static as s; print({'lightkube', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
