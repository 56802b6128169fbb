"""The configuration that is handed to `bridge`: flannel's own cases, to the byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.cni import delegate, jsontext, subnetenv
from udpbackend.cni.errors import PluginError
from udpbackend.cni.request import DATA_DIR, SUBNET_FILE, Config

V4 = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n"
V6 = "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\n"
TWO = V4.replace("/16", "/16,192.168.0.0/16")
REST = "FLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n"

STOCK = {
    "name": "cbr0",
    "cniVersion": "0.3.1",
    "type": "flannel",
    "delegate": {"hairpinMode": True, "isDefaultGateway": True},
}
STOCK_BYTES = (
    b'{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],'
    b'"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1472,'
    b'"name":"cbr0","type":"bridge"}'
)
R4, R6 = {"dst": "10.1.0.0/16"}, {"dst": "fc00::/48"}
S4, S6 = [{"subnet": "10.1.17.0/24"}], [{"subnet": "fc00::/64"}]
GIVEN_ROUTES = [{"dst": "10.96.0.0/12"}, {"dst": "192.168.244.0/24", "gw": "10.1.17.20"}]


def built(config, env=V4):
    """The bytes handed on."""
    document = config if isinstance(config, bytes) else json.dumps(config).encode()
    return jsontext.encode(delegate.build(Config(document), subnetenv.parse(env + REST)))


def plain(**more):
    return {"name": "cni-flannel", "type": "flannel", **more}


def test_the_stock_configuration_to_the_byte():
    assert built(STOCK) == STOCK_BYTES


@pytest.mark.parametrize(
    ("env", "routes", "ranges"),
    [
        (V4, [R4], [S4]),
        (TWO, [R4, {"dst": "192.168.0.0/16"}], [S4]),
        (V6, [R6], [S6]),
        (V4 + V6, [R4, R6], [S4, S6]),
        (V6 + V4, [R4, R6], [S4, S6]),
    ],
)
def test_what_flannels_own_tests_expect(env, routes, ranges):
    assert json.loads(built(plain(), env)) == {
        "ipMasq": False,
        "ipam": {"routes": routes, "ranges": ranges, "type": "host-local"},
        "isGateway": True,
        "mtu": 1472,
        "name": "cni-flannel",
        "type": "bridge",
    }


@pytest.mark.parametrize(
    ("env", "added", "ranges"), [(V4, [R4], [S4]), (V6, [R6], [S6]), (V4 + V6, [R4, R6], [S4, S6])]
)
@pytest.mark.parametrize("kind", ["my-ipam", None])
def test_the_given_address_management_is_kept(env, added, ranges, kind):
    given_ipam = {"unknown-param": "unknown-value", "routes": GIVEN_ROUTES, "ranges": ["overwritten"]}
    given_ipam |= {"type": kind} if kind else {}
    assert json.loads(built(plain(ipam=given_ipam), env))["ipam"] == {
        "type": kind or "host-local",
        "unknown-param": "unknown-value",
        "routes": GIVEN_ROUTES + added,
        "ranges": ranges,
    }


def test_a_route_is_printed_as_go_prints_its_struct():
    route = {"scope": 0, "table": 0, "priority": 7, "advmss": 0, "mtu": 1400.0, "gw": "FC00::0:1", "dst": "FC00::1/48"}
    found = built(plain(ipam={"routes": [route | {"x": 1}, {"dst": "10.0.0.1/8", "gw": ""}]}))
    assert (
        b'"routes":[{"dst":"fc00::1/48","gw":"fc00::1","mtu":1400,"priority":7,"table":0,"scope":0},'
        b'{"dst":"10.0.0.1/8"},{"dst":"10.1.0.0/16"}]'
    ) in found


@pytest.mark.parametrize(
    "routes",
    [7, {}, [7], [{}], [{"dst": 7}], [{"dst": "10.0.0.0"}], [{"dst": "10.0.0.0/8", "gw": "x"}],
     [{"dst": "10.0.0.0/8", "mtu": "9"}], [{"dst": "10.0.0.0/8", "table": True}]],
)  # fmt: skip
def test_a_wrong_route_is_refused(routes):
    with pytest.raises(PluginError) as caught:
        built(plain(ipam={"routes": routes}))
    prefix = "failed to assemble Delegate IPAM: failed to read IPAM routes: failed to parse ipam.routes: "
    assert (caught.value.code, caught.value.msg.startswith(prefix)) == (999, True)


def test_what_the_delegate_says_wins():
    said = {"type": "macvlan", "mtu": 1300, "ipMasq": True, "master": "eth0", "vlan": 1.0}
    found = json.loads(built(plain(delegate=said, cniVersion="1.0.0", runtimeConfig={"portMappings": []})))
    del found["ipam"]
    assert found == said | {"name": "cni-flannel", "cniVersion": "1.0.0", "runtimeConfig": {"portMappings": []}}


@pytest.mark.parametrize(("said", "expected"), [({}, True), ({"isGateway": False}, False)])
def test_a_bridge_is_a_gateway_unless_it_is_said(said, expected):
    assert json.loads(built(plain(delegate=said)))["isGateway"] is expected


@pytest.mark.parametrize("masq", ["true", "false"])
def test_one_of_the_two_masquerades(masq):
    env = subnetenv.parse(f"{V4}FLANNEL_MTU=1472\nFLANNEL_IPMASQ={masq}")
    found = delegate.build(Config(b'{"name":"n"}'), env)
    assert found["ipMasq"] is (masq == "false")


@pytest.mark.parametrize("absent", ["", '"delegate":null,"ipam":null,"runtimeConfig":null,"cniVersion":null,'])
def test_null_is_as_good_as_absent(absent):
    config = Config(f'{{{absent}"name":"n"}}'.encode())
    assert (config.subnet_file, config.data_dir, config.cni_version) == (SUBNET_FILE, DATA_DIR, "")
    assert (config.delegate, config.ipam, config.runtime_config) == (None, None, None)


def test_keys_match_in_any_case_as_in_go():
    config = Config(b'{"NAME":"n","SubnetFile":"/a","DATADIR":"/b","Delegate":{"mtu":9},"name2":1}')
    assert (config.name, config.subnet_file, config.data_dir, config.delegate) == ("n", "/a", "/b", {"mtu": 9})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"type": 7}, "'delegate' dictionary, if present, must have (string) 'type' field"),
        ({"type": None}, "'delegate' dictionary, if present, must have (string) 'type' field"),
        ({"name": "x"}, "'delegate' dictionary must not have 'name' field, it'll be set by flannel"),
        ({"ipam": {}}, "'delegate' dictionary must not have 'ipam' field, it'll be set by flannel"),
    ],
)
def test_what_a_delegate_must_not_say(said, words):
    with pytest.raises(PluginError) as caught:
        built(plain(delegate=said))
    assert (caught.value.code, caught.value.msg, caught.value.details) == (999, words, "")


@pytest.mark.parametrize("key", ["subnetFile", "dataDir", "delegate", "ipam", "runtimeConfig"])
def test_a_value_of_the_wrong_type_is_named(key):
    config = Config(json.dumps({"name": "n", key: 7}).encode())
    with pytest.raises(PluginError, match=f"^failed to load netconf: {key}: expected ") as caught:
        _ = config.subnet_file, config.data_dir, config.delegate, config.ipam, config.runtime_config
    assert caught.value.code == 999


def test_text_is_escaped_as_go_escapes_it():
    found = jsontext.encode({"b": '<a&b>\u2028\u2029é\x7f\x01\n"\\/\ud800', "a": [{}, [], None, 0.5]})
    assert found == (
        b'{"a":[{},[],null,0.5],"b":"\\u003ca\\u0026b\\u003e\\u2028\\u2029\xc3\xa9\x7f\\u0001\\n\\"\\\\/\xef\xbf\xbd"}'
    )


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("1.0", "1"),
        ("1e3", "1000"),
        ("0.5", "0.5"),
        ("-2.0", "-2"),
        ("0.00001", "0.00001"),
        ("-1.25e-5", "-0.0000125"),
        ("1e-6", "0.000001"),
        ("1.5e-7", "1.5e-7"),
        ("1e-100", "1e-100"),
        ("9007199254740992", None),
        ("9007199254740993", "9007199254740992"),
        ("-1152921504606846976", "-1152921504606847000"),
        ("1e20", "100000000000000000000"),
        ("100000000000000000000000", "1e+23"),
        ("1e21", "1e+21"),
    ],
)
def test_numbers_are_printed_as_go_prints_them(text, printed):
    assert jsontext.encode(jsontext.members(f'{{"n":{text}}}'.encode())) == f'{{"n":{printed or text}}}'.encode()


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"7", b'{"n":NaN}', b'{"n":1e999}', b'{"n":%s}' % (b"9" * 5000), b"[" * 100_000, b'{"n":1}x']
)
def test_what_is_no_object_is_refused(data):
    with pytest.raises(ValueError, match=r"."):
        jsontext.members(data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES))
def test_what_is_printed_is_read_back(value):
    printed = jsontext.encode(value)
    assert jsontext.members(printed) == value
    assert jsontext.encode(jsontext.members(printed)) == printed


@given(VALUES, st.sampled_from([None, 4]))
def test_what_is_printed_has_the_usual_form_and_is_read_as_it_was(value, indent):
    separators = (",", ":") if indent is None else (",", ": ")
    usual = json.dumps(value, sort_keys=True, ensure_ascii=False, indent=indent, separators=separators)
    for char in "<>&\u2028\u2029":
        usual = usual.replace(char, f"\\u{ord(char):04x}")
    printed = jsontext.encode(value, indent)
    assert printed == usual.encode()
    assert json.loads(printed) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_is_read_as_it_was(value):
    assert float(json.loads(jsontext.encode(value))) == value
