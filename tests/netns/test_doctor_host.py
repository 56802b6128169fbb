"""`doctor` on faults of one host, each made for real beside daemons that run, or without one."""

import json
import os
import socket
import subprocess
from contextlib import contextmanager

import pytest
from doctored import examine, words
from firewall_facts import require
from refusal import with_mounts
from running import becomes

from bench.lab.daemon import Overlay
from bench.lab.wait import until

NO_BRIDGE_KEYS = "mount -t tmpfs tmpfs /proc/sys/net/bridge"


@pytest.fixture(scope="module")
def a(overlay):
    return overlay.lab.hosts[0]


@contextmanager
def undone(namespace, *commands, undo):
    """`ip` commands, and those that take them back."""
    namespace.ip(*commands)
    try:
        yield
    finally:
        namespace.ip(*undo)


@contextmanager
def sysctl(namespace, key, value, usual):
    namespace.sysctl(key, value)
    try:
        yield
    finally:
        namespace.sysctl(key, usual)


@contextmanager
def kept(path):
    """The file is put back as it was."""
    data = path.read_bytes()
    try:
        yield data.decode()
    finally:
        path.write_bytes(data)


@pytest.fixture(autouse=True)
def _as_before(request):
    """Whatever a test has done to the shared hosts, in the end they are healthy again."""
    yield
    if "overlay" in request.fixturenames:
        overlay = request.getfixturevalue("overlay")
        becomes(overlay, overlay.lab.hosts[0], "ready", 20)  # the daemon itself looks again in a second or two
        examine(overlay, overlay.lab.hosts[0]).nothing()


def test_forwarding_off(overlay, a):
    with sysctl(a.namespace, "ipv4/ip_forward", "0", "1"):
        finding = examine(overlay, a).only("forwarding")
    assert finding["evidence"] == "net.ipv4.ip_forward is 0"
    assert finding["severity"] == "down"
    assert "sysctl -w net.ipv4.ip_forward=1" in finding["cure"]


def test_forwarding_off_on_one_device(overlay, a):
    with sysctl(a.namespace, "ipv4/conf/cni0/forwarding", "0", "1"):
        finding = examine(overlay, a).only("forwarding")
    assert finding["evidence"] == "net.ipv4.conf.cni0.forwarding is 0"


def test_ipv6_forwarding_off(make_overlay):
    overlay = make_overlay(ipv6=True)
    host = overlay.lab.hosts[0]
    examine(overlay, host).nothing()
    host.namespace.sysctl("ipv6/conf/all/forwarding", "0")
    assert examine(overlay, host).only("forwarding")["evidence"] == "net.ipv6.conf.all.forwarding is 0"


def test_a_bridge_of_an_earlier_network(overlay, a):
    with undone(a.namespace, "address add 10.244.3.1/24 dev cni0", undo=["address delete 10.244.3.1/24 dev cni0"]):
        finding = examine(overlay, a).only("leftovers")
    assert finding["what"] == "the bridge cni0 is of another network: new pods cannot be attached to it"
    assert finding["evidence"] == "cni0 has 10.244.3.1, this node's subnet is 10.5.1.0/24"
    assert "ip link delete cni0" in finding["cure"]


def test_devices_and_routes_of_an_earlier_network(overlay, a):
    """flannel.1 as the vxlan backend leaves it, with a route for each node."""
    commands = [
        "link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 nolearning",
        "address add 10.5.1.0/32 dev flannel.1",
        "link set flannel.1 up",
        "route add 10.5.7.0/24 via 10.5.7.0 dev flannel.1 onlink",
    ]
    with undone(a.namespace, *commands, undo=["link delete flannel.1"]):
        found = examine(overlay, a)
    found.only("leftovers")
    evidence = [it["evidence"] for it in found.document["findings"]]
    assert evidence == ["flannel.1 has 10.5.1.0, the overlay of this node is flannel0", "10.5.7.0/24 dev flannel.1"]


def test_a_route_that_hides_a_peer_is_all_that_is_told(overlay, a):
    """As flanneld's host-gw leaves it, by a gateway that is no more: nothing is said of a blocked port."""
    route = "10.5.2.0/24 via 192.168.77.99 dev eth0"
    with undone(a.namespace, f"route add {route}", undo=[f"route delete {route}"]):
        finding = examine(overlay, a).only("leftovers")
    assert finding["evidence"] == "10.5.2.0/24 dev eth0"


def test_the_route_of_a_running_bridge_is_not_to_be_deleted(overlay, a):
    """A second address of cni0, inside the network: the bridge is told, its own route is not."""
    with undone(a.namespace, "address add 10.5.9.1/24 dev cni0", undo=["address delete 10.5.9.1/24 dev cni0"]):
        found = examine(overlay, a)
    found.only("leftovers")
    assert [it["evidence"] for it in found.document["findings"]] == [
        "cni0 has 10.5.9.1, this node's subnet is 10.5.1.0/24"
    ]


def test_a_foreign_address_on_flannel0(overlay, a):
    with undone(a.namespace, "address add 10.9.9.0/32 dev flannel0", undo=["address delete 10.9.9.0/32 dev flannel0"]):
        finding = examine(overlay, a).only("leftovers")
    assert finding["severity"] == "risk"
    assert finding["evidence"] == "flannel0 has 10.9.9.0, expected 10.5.1.0 alone"


def test_subnet_env_is_missing(overlay, a):
    path = overlay.run_directory(a) / "subnet.env"
    with kept(path):
        path.unlink()
        finding = examine(overlay, a).only("subnet-file")
    assert finding["what"] == f"{path} is missing: no pod can start on this node"
    assert finding["cure"].startswith("restart the daemon")


@pytest.mark.parametrize(
    ("old", "new", "evidence"),
    [
        ("10.5.1.1/24", "10.5.9.1/24", "FLANNEL_SUBNET is 10.5.9.0/24 where the daemon has 10.5.1.0/24"),
        ("10.5.0.0/16", "10.6.0.0/16", "FLANNEL_NETWORK is 10.6.0.0/16 where the daemon has 10.5.0.0/16"),
        ("1472", "8951", "FLANNEL_MTU is 8951 where the daemon has 1472"),
        ("FLANNEL_MTU", "FLANNEL_MTOO", "is missing FLANNEL_MTU"),
        ("1472", "many", 'parsing "many": invalid syntax'),
    ],
)
def test_subnet_env_of_another_lease(overlay, a, old, new, evidence):
    path = overlay.run_directory(a) / "subnet.env"
    with kept(path) as text:
        path.write_text(text.replace(old, new))
        finding = examine(overlay, a).only("subnet-file")
    assert finding["evidence"].endswith(evidence)


def test_a_subnet_file_that_hangs_holds_up_nothing(overlay, a):
    path = overlay.run_directory(a) / "subnet.env"
    with kept(path):
        path.unlink()
        os.mkfifo(path)
        try:
            finding = examine(overlay, a).only("subnet-file")
        finally:
            path.unlink()
    assert finding["what"] == f"{path} cannot be used: no pod can start on this node"
    assert "nothing has come within 5 s" in finding["evidence"]


def test_a_degraded_daemon(overlay, a):
    with kept(overlay.registry):
        overlay.registry.write_text("{")
        until(lambda: overlay.status(a)["verdict"]["state"] == "degraded", 10, "the daemon has seen it")
        finding = examine(overlay, a).only("daemon")
        assert finding["what"] == "the daemon is degraded"
        assert finding["evidence"].startswith(f"registry: {overlay.registry}: not valid JSON")
    until(lambda: overlay.status(a)["verdict"]["state"] == "ready", 10, "the file is good again")


def test_no_daemon(make_overlay):
    """With what an earlier one has written, and without."""
    overlay = make_overlay()
    host = overlay.lab.hosts[0]
    overlay.stop(host)
    found = examine(overlay, host)
    finding = found.only("daemon")
    assert finding["severity"] == "down"
    assert finding["evidence"].startswith("not running: nobody listens on")
    assert found.document["daemon"] is None
    assert {"interface", "reach", "path-mtu", "rp-filter", "duplicates"} <= set(found.not_checked)
    assert not {"leftovers", "forwarding", "firewall"} & set(found.not_checked)
    host.namespace.ip("address add 10.244.3.1/24 dev cni0")
    examine(overlay, host).only("daemon", "leftovers")
    (overlay.run_directory(host) / "subnet.env").unlink()
    examine(overlay, host).only("daemon", "subnet-file")


def test_a_daemon_that_hangs(overlay, a, tmp_path):
    """It takes the question and never answers."""
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "s"))
        deaf.listen()
        found = examine(overlay, a, f"--status-socket={tmp_path / 's'}")
    assert found.only("daemon")["evidence"].endswith("does not answer: timed out")


def test_bridged_packets_beside_iptables(overlay, a):
    flags = ["--kube-api-url=http://127.0.0.1:9"]
    with sysctl(a.namespace, "bridge/bridge-nf-call-iptables", "0", "1"):
        finding = examine(overlay, a, *flags).only("br-netfilter", "cni-config")
        assert finding["evidence"] == "net.bridge.bridge-nf-call-iptables is 0"
        examine(overlay, a).nothing()
    finding = examine(overlay, a, *flags, before=tuple(with_mounts(NO_BRIDGE_KEYS))).only("br-netfilter", "cni-config")
    assert finding["evidence"] == "there is no net.bridge.bridge-nf-call-iptables"


def test_masquerading_by_iptables_needs_br_netfilter(overlay, a):
    path = overlay.run_directory(a) / "subnet.env"
    with kept(path) as text:
        path.write_text(text.replace("IPMASQ=false", "IPMASQ=true"))
        found = examine(overlay, a, before=tuple(with_mounts(NO_BRIDGE_KEYS)))
    assert found.findings["br-netfilter"]["severity"] == "risk"


def iptables(namespace, *lines):
    for line in lines:
        namespace.run("iptables", *line.split())


def test_a_firewall_that_drops_what_is_forwarded(make_overlay):
    overlay = make_overlay()
    host = overlay.lab.hosts[0]
    iptables(host.namespace, "-P FORWARD DROP")
    assert "firewall" not in examine(overlay, host).findings, "a daemon's rules let the overlay through"
    overlay.stop(host)
    host.namespace.run("iptables", "-F", "FLANNEL-FWD")
    finding = examine(overlay, host).findings["firewall"]
    assert finding["severity"] == "down"
    assert finding["evidence"].startswith("the policy DROP of iptables' chain FORWARD ends packets of 10.5.0.0/16, and")
    iptables(host.namespace, "-A FORWARD -i cni0 -j ACCEPT")
    finding = examine(overlay, host).findings["firewall"]
    assert finding["severity"] == "part"
    assert "from other nodes to pods of this one" in finding["evidence"]
    iptables(host.namespace, "-A FORWARD -o cni0 -j ACCEPT")
    assert "firewall" not in examine(overlay, host).findings


@contextmanager
def rule(namespace, program, chain, *words):
    namespace.run(program, "-I", chain, *words)
    try:
        yield f"rule `-A {chain} {' '.join(words)}` of {program}' chain {chain}"
    finally:
        namespace.run(program, "-D", chain, *words)


def test_a_rule_about_one_peer_is_found_by_doctor_and_trace(overlay, a):
    b = overlay.lab.hosts[1]
    with rule(a.namespace, "iptables", "FORWARD", "-d", b.subnet, "-j", "DROP") as named:
        finding = examine(overlay, a).only("firewall")
        traced = trace(overlay, a, b)
    evidence = f"{named} ends packets from pods of this node to {b.subnet}"
    assert (finding["severity"], finding["evidence"]) == ("part", evidence)
    end = traced["steps"][-1]
    assert (end["what"], named in end["source"], traced["arrives"]) == ("the firewall drops it", True, False)
    assert trace(overlay, a, b)["arrives"]


def trace(overlay, here, there):
    argv = [*words(overlay, here), "-o", "json", "--dry", f"--from={here.pod_address}", there.pod_address]
    argv[1] = "trace"
    done = subprocess.run(here.namespace.argv(argv), capture_output=True, text=True, timeout=40, check=False)
    return json.loads(done.stdout)


def test_a_rule_of_nftables_about_one_peer(overlay, a):
    chain = "chain f { type filter hook forward priority 0; ip saddr 10.5.2.0/24 drop; }"
    a.namespace.run("nft", "-f", "-", text=f"table inet fault {{\n{chain}\n}}\n")
    try:
        finding = examine(overlay, a).only("firewall")
    finally:
        a.namespace.run("nft", "delete", "table", "inet", "fault")
    assert "chain inet fault f ends packets from 10.5.2.0/24 to pods of this node" in finding["evidence"]


def test_the_older_tables_beside_the_newer_ones(make_overlay):
    overlay = make_overlay()
    host = overlay.lab.hosts[0]
    require("iptables-legacy")
    examine(overlay, host).nothing()
    tables = host.namespace.run("cat", "/proc/net/ip_tables_names")
    assert tables == "", "nobody has made them by looking"
    host.namespace.run("iptables-legacy", "-P", "FORWARD", "DROP")
    finding = examine(overlay, host).only("firewall")
    assert finding["severity"] == "down"
    assert finding["evidence"].startswith(
        "the policy DROP of iptables-legacy' chain FORWARD ends packets of 10.5.0.0/16"
    )
    for command in ("-s", "-d"):
        host.namespace.run("iptables-legacy", "-I", "FORWARD", command, "10.5.0.0/16", "-j", "ACCEPT")
    examine(overlay, host).nothing()


def test_masquerading_that_is_missing(make_overlay):
    overlay = make_overlay()
    host = overlay.lab.hosts[0]
    overlay.stop(host)
    path = overlay.run_directory(host) / "subnet.env"
    path.write_text(path.read_text().replace("IPMASQ=false", "IPMASQ=true"))
    finding = examine(overlay, host).findings["firewall"]
    assert finding["what"].startswith("what pods send out of the overlay is not masqueraded")
    assert "iptables table nat: no chain FLANNEL-POSTRTG" in finding["evidence"]
    rule = ["--comment", "flanneld masq"]
    network, subnet = "10.5.0.0/16", "10.5.1.0/24"
    host.namespace.run("iptables", "-t", "nat", "-N", "FLANNEL-POSTRTG")
    host.namespace.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-m", "comment", *rule, "-j", "FLANNEL-POSTRTG")
    for match, target in (
        ("-m mark --mark 0x4000/0x4000", "RETURN"),
        (f"-s {subnet} -d {network}", "RETURN"),
        (f"-s {network} -d {subnet}", "RETURN"),
        (f"! -s {network} -d {subnet}", "RETURN"),
        (f"-s {network} ! -d 224.0.0.0/4", "MASQUERADE"),
        (f"! -s {network} -d {network}", "MASQUERADE"),
    ):
        words_of = [*match.split(), "-m", "comment", *rule, "-j", target]
        host.namespace.run("iptables", "-t", "nat", "-A", "FLANNEL-POSTRTG", *words_of)
    assert "firewall" not in examine(overlay, host).findings, "an older flannel's, without --random-fully"


def test_a_dangling_configuration_of_cni(overlay, a, tmp_path):
    conf, programs = tmp_path / "net.d", tmp_path / "bin"
    conf.mkdir()
    programs.mkdir()
    flags = [f"--cni-conf-dir={conf}", f"--cni-bin-dir={programs}"]
    assert examine(overlay, a, *flags).only("cni-config")["evidence"].startswith(f"{conf} holds no file")
    (conf / "10-flannel.conflist").symlink_to(tmp_path / "gone")
    finding = examine(overlay, a, *flags).only("cni-config")
    assert finding["evidence"] == f"{conf}/10-flannel.conflist: a link that leads nowhere, to {tmp_path}/gone"
    (conf / "10-flannel.conflist").unlink()
    flags_of_install = [*flags, "--conf-file", str(_conflist(tmp_path, overlay.run_directory(a) / "subnet.env"))]
    a.namespace.run(words(overlay, a)[0], "install-cni", *flags_of_install)
    finding = examine(overlay, a, *flags).only("cni-config")
    assert "bridge is not there; host-local is not there" in finding["evidence"]
    for name in ("bridge", "host-local"):
        (programs / name).symlink_to("/bin/true")
    examine(overlay, a, *flags).nothing()


def _conflist(folder, subnet_file):
    path = folder / "conf.json"
    plugin = {"type": "flannel", "subnetFile": str(subnet_file)}
    path.write_text(json.dumps({"name": "cbr0", "cniVersion": "1.0.0", "plugins": [plugin]}))
    return path


def test_the_text_for_people(overlay: Overlay, a):
    with sysctl(a.namespace, "ipv4/ip_forward", "0", "1"):
        argv = a.namespace.argv(words(overlay, a))
        done = subprocess.run(argv, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "DOWN  the kernel does not forward the packets of every pod",
        "  evidence: net.ipv4.ip_forward is 0",
    ]
    assert lines[2].startswith("  cure: sysctl -w net.ipv4.ip_forward=1")
    assert lines[-1].startswith("1 finding (")
