"""Everything that others hand us as text, in every form that hypothesis thinks of, and what must hold of each.

`python tests/untrusted.py SECONDS` tries each for so long (`make fuzz`); tests/unit/test_untrusted.py tries each for a
moment. A target is a property: given any document it gives a value that holds what it promises, or the one error that
its reader expects. Most documents are good ones of which some part was exchanged.
"""

import json
import sys
import time
from ipaddress import IPv4Address
from itertools import pairwise

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from udpbackend.backends.backend import check_config
from udpbackend.backends.udp_peers import takes_ipv6
from udpbackend.backends.vxlan_peers import mac_of
from udpbackend.cni import delegate, jsontext, subnetenv
from udpbackend.cni.errors import PluginError
from udpbackend.cni.request import Config
from udpbackend.commands import status
from udpbackend.commands.status_text import render
from udpbackend.commands.table import Palette
from udpbackend.errors import ConfigError
from udpbackend.gojson import UNREADABLE
from udpbackend.model import Lease, Prefix
from udpbackend.observe.report import Report
from udpbackend.subnets.config import parse_config
from udpbackend.subnets.etcd.keys import Keys
from udpbackend.subnets.etcd.values import Event, KeyValue, Range
from udpbackend.subnets.etcd.view import View
from udpbackend.subnets.kube.annotations import Names
from udpbackend.subnets.kube.claims import settle
from udpbackend.subnets.kube.node import Node, own_lease, read
from udpbackend.subnets.nodes import parse_nodes

CONFIG = {"Network": "10.5.0.0/16", "EnableIPv6": True, "IPv6Network": "fd00:5::/48", "Backend": {"Type": "udp"}}
NETWORK = parse_config(json.dumps(CONFIG))
OWN = Lease(Prefix.parse("10.5.1.0/24"), int(IPv4Address("192.0.2.1")))
NAMES = Names.under("flannel.alpha.coreos.com")
KEYS = Keys("/n")

LIKELY = st.sampled_from(
    ["", "null", "true", "10.5.2.0/24", "10.5.2.1/24", "10.5.0.0/16", "fd00:5:0:2::/64", "192.0.2.2", "192.0.2.1",
     "::1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "10.5.3.4", "udp", "vxlan", "host-gw", "a%b", "\x1b[2J", "../x"]
)  # fmt: skip
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), LIKELY, st.text(max_size=20))
ANY = st.recursive(
    SCALAR, lambda it: st.lists(it, max_size=3) | st.dictionaries(LIKELY | st.text(), it, max_size=3), max_leaves=6
)


@st.composite
def near(draw, good):
    """The text of a good document of which up to three parts were exchanged, or of none at all."""
    document = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(0, 3))):
        document = _exchanged(draw, document)
    text = json.dumps(document).encode()
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=4)) + text[at + draw(st.integers(0, 4)) :]
    return draw(st.binary(max_size=40)) if draw(st.integers(0, 19)) == 0 else text


def _exchanged(draw, value):
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(ANY)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = draw(st.sampled_from(keys))
    what = draw(st.integers(0, 7))
    if what == 0:
        del value[key]
    elif what == 1 and isinstance(value, dict):
        value[draw(st.text(max_size=5)) if draw(st.booleans()) else key.upper()] = value.pop(key)
    else:
        value[key] = _exchanged(draw, value[key])
    return value


# ---- the network's configuration, and the static file ----


@given(near(CONFIG | {"SubnetLen": 24, "SubnetMin": "10.5.1.0", "Backend": {"Type": "vxlan", "VNI": 7, "Port": 8472}}))
def network_configuration(text):
    try:
        config = parse_config(text)
        check_config(config)
    except ConfigError as error:
        _one_line(error)
        return
    assert config.network.holds(config.subnet_min)
    assert config.network.holds(config.subnet_max)
    assert config.network.bits < config.subnet_len <= 30


NODES = [
    {"Name": "a", "PublicIP": "192.0.2.10", "Subnet": "10.5.1.0/24", "IPv6Subnet": "fd00:5:0:1::/64"},
    {"Name": "b", "PublicIP": "192.0.2.11", "Subnet": "10.5.2.0/24", "BackendType": "vxlan", "PublicIPv6": "fd01::2"},
    {"PublicIP": "192.0.2.12", "Subnet": "10.5.3.0/25"},
]


@given(near(CONFIG | {"Nodes": NODES}))
def static_file(text):
    try:
        config, leases = parse_nodes(text)
    except ConfigError as error:
        _one_line(error)
        return
    _apart(config, leases)
    assert all(config.network.contains(it.subnet) for it in leases)


# ---- etcd ----

SUBNETS = st.sampled_from(
    [
        b"10.5.1.0-24",
        b"10.5.2.0-24",
        b"10.5.2.0-25",
        b"10.5.3.0-24&fd00:5:0:3::-64",
        b"10.6.1.0-24",
        b"x",
        b"10.5.2.1-24",
    ]
)
VALUE = near({"PublicIP": "192.0.2.2", "PublicIPv6": None, "BackendType": "vxlan", "BackendData": {"VNI": 1}})


@st.composite
def key_values(draw):
    name = draw(SUBNETS if draw(st.integers(0, 9)) else st.binary(max_size=20))
    created = draw(st.integers(1, 9))
    changed = created + draw(st.integers(0, 9))
    return KeyValue(KEYS.subnets + name, draw(VALUE), changed, created, 1, draw(st.integers(0, 1)))


@given(
    st.lists(key_values(), max_size=6, unique_by=lambda it: it.key), st.lists(st.tuples(st.booleans(), key_values()))
)
def etcd_values(listed, changes):
    view = View(KEYS, NETWORK, OWN)
    view.listed(Range(10, 1, tuple(listed)), 0.0)
    view.settle(0.0)
    for revision, (is_put, kv) in enumerate(changes, 20):
        view.fold(Event("PUT" if is_put else "DELETE", msgspec.structs.replace(kv, mod_revision=revision)))
        view.settle(float(revision))
        _apart(NETWORK, view.leases)
    assert OWN in view.leases
    for complaint in view.complaints():
        _one_line(complaint)


# ---- Kubernetes ----

NODE = {
    "metadata": {
        "name": "b",
        "uid": "u",
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {
            NAMES.managed: "true",
            NAMES.backend_type: "vxlan",
            NAMES.backend_data: '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}',
            NAMES.public_ip: "192.0.2.2",
            NAMES.public_ipv6: "fd01::2",
            NAMES.public_ip_overwrite: "192.0.2.3",
        },
    },
    "spec": {"podCIDR": "10.5.2.0/24", "podCIDRs": ["10.5.2.0/24", "fd00:5:0:2::/64"]},
}


@given(st.lists(near(NODE), min_size=1, max_size=4))
def kubernetes_nodes(texts):
    readings = {}
    for text in texts:
        try:
            node = msgspec.json.decode(text, type=Node)
        except UNREADABLE:
            continue
        if reading := read(node, NAMES, NETWORK):
            assert reading.lease or reading.problem
            readings[node.name] = reading
            _backend_data(reading.lease)
        try:
            own_lease(node, NAMES, NETWORK, IPv4Address("192.0.2.9"))
        except ConfigError as error:
            _one_line(error)
    leases, refused, doubted = settle(OWN, list(readings.values()))
    _apart(NETWORK, leases)
    assert OWN in leases
    for problem in (*refused.values(), *doubted.values()):
        _one_line(problem)


def _backend_data(lease):
    """What a backend makes of what a peer says of itself."""
    if lease is None:
        return
    takes_ipv6(lease)
    try:
        assert len(mac_of(lease.backend_data, 1, lease.subnet)) == 6
    except ConfigError as error:
        _one_line(error)


# ---- the CNI plugin ----

CNI = {
    "name": "cbr0",
    "cniVersion": "1.0.0",
    "type": "flannel",
    "subnetFile": "/run/flannel/subnet.env",
    "delegate": {"hairpinMode": True, "type": "bridge", "mtu": 1400},
    "ipam": {"type": "host-local", "routes": [{"dst": "10.96.0.0/12", "gw": "10.5.1.1"}]},
    "runtimeConfig": {"portMappings": []},
    "prevResult": {"ips": [{"address": "10.5.1.2/24", "gateway": "10.5.1.1"}], "routes": [{"dst": "10.5.0.0/16"}]},
    "cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}],
}
ENV = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n"


@given(near(CNI), st.text(max_size=30), st.integers(0, len(ENV)))
def cni_input(text, more, at):
    try:
        config = Config(text)
        for field in (
            "cni_version",
            "subnet_file",
            "data_dir",
            "runtime_config",
            "previous_result",
            "valid_attachments",
        ):
            getattr(config, field)
        env = subnetenv.parse(ENV[:at] + more + ENV[at:])
        built = jsontext.encode(delegate.build(config, env))
    except (PluginError, ValueError):
        return
    found = json.loads(built)
    assert (found["name"], found["ipam"]["ranges"]) == (config.name, json.loads(built)["ipam"]["ranges"])
    assert isinstance(found["type"], str)


# ---- the status document, as the commands read it ----

STATUS = {
    "schema": 1, "version": "1", "node": "a", "started_at": "2026-01-01T00:00:00Z", "uptime_s": 1.5,
    "verdict": {"state": "ready", "text": "ready", "reasons": []},
    "network": {"network": "10.5.0.0/16", "subnet": "10.5.1.0/24", "backend": "udp", "port": 1, "source_check": "off"},
    "interface": {"name": "eth0", "address": "192.0.2.1", "public_ip": "192.0.2.1", "mtu": 1500,
                  "overlay_device": "flannel0", "overlay_address": "10.5.1.0", "overlay_mtu": 1472},
    "offloads": ["tso"],
    "registry": {"kind": "etcd", "source": "u", "revision": 1, "synced_at": None, "age_s": 2.0, "degraded": None},
    "routes": 1,
    "peers": [{"node": "b", "public_ip": "192.0.2.2", "port": 8285, "subnets": ["10.5.2.0/24"], "silent_s": 3.0}],
    "counters": [{"name": "n", "direction": "tx", "kind": "dropped", "value": 3, "meaning": "m", "cure": "c"}],
    "kernel": [{"name": "k", "direction": "rx", "value": 1, "meaning": "m", "cure": "c"}],
    "law": {it: {"received": 1, "delivered": 1, "dropped": 0, "in_flight": 0, "unexplained": 0} for it in ("tx", "rx")},
    "rates": {}, "last_error": "e", "loop": {"lag_s": 0.1},
    "ignored": [{"node": "c", "public_ip": "192.0.2.3", "backend": "vxlan", "subnets": ["10.5.3.0/24"]}],
    "peers_total": 7,
}  # fmt: skip


@given(near(STATUS), st.booleans())
def status_document(text, wide):
    try:
        report = status._read("/run/x.sock", text)
    except status.NoAnswerError as error:
        _one_line(error)
        return
    assert isinstance(report, Report)
    for line in render(report, wide=wide, palette=Palette(on=False)):
        assert line.isprintable(), "this goes to a terminal"


# ---- what must hold ----


def _apart(config, leases):
    """No two subnets overlap, and each lease is one that a packet can be sent by."""
    for subnets in (sorted(it.subnet for it in leases), sorted(it.ipv6_subnet for it in leases if it.ipv6_subnet)):
        assert not any(one.overlaps(other) for one, other in pairwise(subnets))
    assert all(0 < it.public_ip < 1 << 32 for it in leases)
    assert all(config.network.contains(it.subnet) for it in leases)


def _one_line(error):
    """For a log: whatever was in the document, a line that nobody could mistake for another."""
    assert str(error).strip()


TARGETS = {it.__name__: it for it in (
    network_configuration, static_file, etcd_values, kubernetes_nodes, cni_input, status_document
)}  # fmt: skip


def tried(target, examples):
    """The target, to be called for so many examples; slow machines are no failure."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(max_examples=examples, deadline=None, suppress_health_check=quiet, database=None)(target)


def main(seconds):
    """Each target for so many seconds; 1 if one has failed."""
    failed = 0
    for name, target in TARGETS.items():
        end, count, outcome = time.monotonic() + seconds, 0, "nothing found"
        some = tried(target, 100)
        while time.monotonic() < end:
            try:
                some()
            except Exception as error:  # noqa: BLE001 whatever it is, the others are to be tried
                outcome, failed = f"FAILED: {type(error).__name__}: {error}", 1
                for note in getattr(error, "__notes__", ()):
                    sys.stderr.write(f"{note}\n")
                break
            count += 100
        sys.stdout.write(f"fuzz_{name}: {count} documents in {seconds:g} s, {outcome}\n")
        sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
