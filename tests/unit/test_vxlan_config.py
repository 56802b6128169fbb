"""The options of the vxlan backend: flannel's keys in any case, their defaults and their ranges."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.backends.vxlan_config import VxlanOptions
from udpbackend.errors import ConfigError
from udpbackend.model import BackendConfig


def parse(ipv6=False, **options):
    return VxlanOptions.parse(BackendConfig("vxlan", {"Type": "vxlan", **options}), ipv6=ipv6)


def test_the_defaults_are_flannel_s():
    found = parse()
    assert (found.vni, found.port, found.mtu) == (1, 8472, None)
    assert (found.gbp, found.learning, found.direct_routing) == (False, False, False)
    assert (found.device(4), found.device(6)) == ("flannel.1", "flannel-v6.1")


def test_keys_match_in_any_case_and_unknown_ones_are_ignored():
    found = parse(
        vni=4096, PORT=4789, mtu=1400, gBp=True, LEARNING=True, directrouting=True, MacPrefix="0E-2A", Name="x"
    )
    assert found == VxlanOptions(4096, 4789, 1400, gbp=True, learning=True, direct_routing=True)


@pytest.mark.parametrize("options", [{"Port": 0}, {"Port": None, "VNI": None, "MTU": None, "GBP": None}])
def test_zero_and_null_are_the_defaults(options):
    assert parse(**options) == VxlanOptions()


def test_vni_zero_is_a_number_like_another():
    assert parse(VNI=0).device(4) == "flannel.0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"VNI": "1"}, 'error decoding VXLAN backend config: Backend.VNI: expected a whole number, got "1"'),
        ({"VNI": 1.5}, "error decoding VXLAN backend config: Backend.VNI: expected a whole number, got 1.5"),
        ({"GBP": 1}, "error decoding VXLAN backend config: Backend.GBP: expected true or false, got 1"),
        ({"VNI": -1}, "Backend.VNI: expected a number from 0 to 16777215, got -1"),
        ({"VNI": 1 << 24}, "Backend.VNI: expected a number from 0 to 16777215, got 16777216"),
        ({"Port": 65536}, "Backend.Port: expected a port number from 1 to 65535, or 0 for the usual, got 65536"),
        ({"Port": -1}, "Backend.Port: expected a port number from 1 to 65535, or 0 for the usual, got -1"),
        ({"MTU": 0}, "Backend.MTU: expected 626 to 65535 bytes, got 0"),
        ({"MTU": 65536}, "Backend.MTU: expected 626 to 65535 bytes, got 65536"),
        ({"VNI": 10_000_000}, "Backend.VNI: the device would be called flannel.10000000, and the kernel takes no name"),
        ({"VNI": 10_000, "ipv6": True}, "Backend.VNI: the device would be called flannel-v6.10000"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(ConfigError) as caught:
        parse(**options)
    assert str(caught.value).startswith(message)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())
KEYS = st.sampled_from(["VNI", "vni", "Port", "MTU", "GBP", "Learning", "DirectRouting", "Type"]) | st.text()


@given(st.dictionaries(KEYS, VALUES), st.booleans())
def test_any_object_is_options_or_a_config_error(options, ipv6):
    with contextlib.suppress(ConfigError):
        found = VxlanOptions.parse(BackendConfig("vxlan", options), ipv6=ipv6)
        assert 0 <= found.vni < 1 << 24
        assert 1 <= found.port <= 65535
        assert len(found.device(6 if ipv6 else 4)) <= 15
