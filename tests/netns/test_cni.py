"""The installed CNI plugin with the real `bridge` and `host-local`: pods of two nodes meet through the overlay.

Each host loses the laboratory's own bridge and pod link first; what stands there then was made by the plugins.
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.lab import traffic
from bench.lab.daemon import Overlay
from bench.lab.netns import Namespaces
from bench.lab.process import Processes
from bench.lab.topology import Host, Lab
from bench.lab.wait import until
from udpbackend.commands import install_cni

REAL = Path("/usr/lib/cni")
PODS = 6
CNI_STATE = Path("/var/lib/cni")
"""Where plugins keep what they are not told to keep elsewhere."""


class Node:
    """A host with an installed plugin, and its pod as a container without a network."""

    def __init__(self, overlay: Overlay, host: Host) -> None:
        self.host = host
        self.bin = overlay.lab.directory / "bin"
        self.state = overlay.run_directory(host) / "flannel"
        self.leases = overlay.run_directory(host) / "ipam"
        listed = json.loads((overlay.lab.directory / "net.d" / "10-flannel.conflist").read_text())
        self.config = {
            **listed["plugins"][0],
            "name": listed["name"],
            "cniVersion": listed["cniVersion"],
            "subnetFile": str(overlay.run_directory(host) / "subnet.env"),
            "dataDir": str(self.state),
            "ipam": {"dataDir": str(self.leases)},
        }
        self.config["delegate"] = {**self.config["delegate"], "ipMasq": False}

    def run(self, command, *, container="pod-1", netns=None, config=None):
        """Exit status and what it printed, as JSON if it printed anything."""
        done = subprocess.run(
            self.host.namespace.argv([str(self.bin / "flannel")]),
            input=json.dumps(self.config if config is None else config),
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": container,
                "CNI_NETNS": str(self.host.pod.path if netns is None else netns),
                "CNI_IFNAME": "eth0",
                "CNI_PATH": f"{self.bin}:{REAL}",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    def add(self, **options):
        """The addresses that an ADD gives."""
        status, result = self.run("ADD", **options)
        assert status == 0, result
        return [item["address"].partition("/")[0] for item in result["ips"]]

    def links(self, namespace=None):
        """Names and MTUs of the links there, loopback and the daemon's aside."""
        shown = json.loads((namespace or self.host.namespace).run("ip", "-j", "link"))
        return {it["ifname"]: it["mtu"] for it in shown if it["ifname"] not in ("lo", "flannel0")}

    def kept(self):
        """Names of the state files, and of the addresses in use."""
        folders = [self.state, self.leases / "cbr0"]
        return [
            sorted(path.name for path in folder.glob("*") if path.name != "lock" and not path.name.startswith("last_"))
            for folder in folders
        ]


@contextmanager
def attached(*, ipv6: bool = False):
    """An overlay and its nodes, whose daemons have to account for every packet at the end."""
    with Lab(2, ipv6=ipv6) as lab, Overlay(lab) as overlay:
        here, source = lab.directory, lab.directory / "cni-conf.json"
        source.write_text(install_cni.STOCK.format(plugin="flannel"))
        install_cni.run([f"--cni-bin-dir={here}/bin", f"--cni-conf-dir={here}/net.d", f"--conf-file={source}"])
        for host in lab.hosts:
            host.namespace.ip("link delete pod0", "link delete cni0")
        overlay.start_all()
        yield overlay, [Node(overlay, host) for host in lab.hosts]
        overlay.stop_all()


@pytest.fixture(scope="module")
def real(able):
    """Skips loudly where there are no plugins to delegate to; sees that none writes outside the laboratory."""
    missing = [str(REAL / name) for name in ("bridge", "host-local") if not (REAL / name).exists()]
    missing += [name for name in ("iptables", "iptables-save") if not shutil.which(name)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (containernetworking-plugins, iptables)")
    before = sorted(CNI_STATE.rglob("*"))
    yield
    assert sorted(CNI_STATE.rglob("*")) == before


@pytest.fixture(scope="module")
def running(real):
    with attached() as made:
        yield made


@pytest.fixture
def nodes(running):
    """Whatever a test leaves attached is taken off again."""
    made = running[1]
    yield made
    for node in made:
        for container in node.kept()[0]:
            assert node.run("DEL", container=container) == (0, None)


def test_pods_of_two_nodes_meet_through_the_overlay(running, nodes):
    overlay, (a, b) = running[0], nodes
    [here], [there] = a.add(), b.add()
    assert (here, there) == ("10.5.1.2", "10.5.2.2")
    for node, other in ((a, there), (b, here)):
        found = traffic.ping(node.host.pod, other, count=10)
        assert found.received == found.sent == 10
    before = overlay.carried(a.host)
    found = traffic.tcp(traffic.Way(a.host.pod, b.host.pod, there), seconds=2)
    assert found.received_bytes > 1_000_000
    assert (overlay.carried(a.host) - before).tx_bytes > found.received_bytes


def test_the_pod_has_the_overlays_mtu_and_a_way_out(nodes):
    node = nodes[0]
    node.add()
    assert node.links(node.host.pod) == {"eth0": 1472}
    links = node.links()
    assert (links.pop("cni0"), links.pop("eth0"), list(links.values())) == (1472, 1500, [1472])
    routes = node.host.pod.run("ip", "route")
    assert "default via 10.5.1.1 dev eth0" in routes
    assert "10.5.0.0/16 via 10.5.1.1 dev eth0" in routes
    assert '"hairpin": true' in node.host.namespace.run("bridge", "-d", "-j", "link").replace(":true", ": true")
    assert "10.5.1.1/24" in node.host.namespace.run("ip", "-o", "-4", "addr", "show", "dev", "cni0")
    assert traffic.ping(node.host.pod, "10.5.1.1").received == 5


def test_what_is_kept_is_what_was_handed_over(nodes):
    node = nodes[0]
    node.add()
    assert (node.state / "pod-1").read_bytes() == (
        b'{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,"ipam":{"dataDir":"%s",'
        b'"ranges":[[{"subnet":"10.5.1.0/24"}]],"routes":[{"dst":"10.5.0.0/16"}],"type":"host-local"},'
        b'"isDefaultGateway":true,"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}'
        % str(node.leases).encode()
    )


def test_del_removes_everything_and_again_succeeds(nodes):
    node = nodes[0]
    [address] = node.add()
    assert node.kept() == [["pod-1"], [address]]
    for _ in range(2):
        assert node.run("DEL") == (0, None)
        assert node.kept() == [[], []]
        assert node.links(node.host.pod) == {}
        assert set(node.links()) <= {"eth0", "cni0"}


def test_a_pod_whose_namespace_is_gone_is_still_deleted(running, nodes):
    node = nodes[0]
    with Processes(running[0].lab.directory) as processes, Namespaces(processes) as namespaces:
        pod = namespaces.add("pod")
        node.add(netns=pod.path)
    assert not pod.path.exists()
    assert node.run("DEL", netns=pod.path) == (0, None)
    assert node.kept() == [[], []]
    # The kernel takes a namespace apart, and with it the pair's end on the host, some time after its name has gone.
    until(lambda: set(node.links()) == {"eth0", "cni0"}, 30, "the pod's pair has not gone")


def test_a_failed_add_keeps_what_del_needs(nodes):
    node = nodes[0]
    status, error = node.run("ADD", netns="/run/netns/none")
    assert (status, error["code"]) == (1, 999)
    assert "/run/netns/none" in error["msg"]
    assert node.kept()[0] == ["pod-1"]
    assert node.run("DEL", netns="/run/netns/none") == (0, None)
    assert node.kept() == [[], []]


def test_an_add_without_a_daemon_says_what_is_missing(nodes):
    node = nodes[0]
    status, error = node.run("ADD", config={**node.config, "subnetFile": "/run/none/subnet.env"})
    assert (status, error["code"]) == (1, 999)
    assert error["msg"] == (
        "failed to load flannel 'subnet.env' file: open /run/none/subnet.env: no such file or directory. "
        "Check the flannel pod log for this node."
    )
    assert node.kept() == [[], []]


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_the_versions_that_debians_plugins_speak(nodes, version):
    node = nodes[0]
    config = {**node.config, "cniVersion": version}
    status, result = node.run("ADD", config=config)
    assert (status, result.get("cniVersion")) == (0, version), result
    check = {**config, "prevResult": result}
    if version == "0.3.1":
        assert node.run("CHECK", config=check)[1]["msg"] == "config version does not allow CHECK"
    else:
        assert node.run("CHECK", config=check) == (0, None)
        node.host.pod.ip("address flush dev eth0")
        status, error = node.run("CHECK", config=check)
        assert (status, error["code"]) == (1, 999)
        assert "10.5.1." in error["msg"], "the address that is gone is named"
    assert [node.run(command, config=config)[1]["code"] for command in ("STATUS", "GC")] == [1, 1]
    assert len(node.kept()[0]) == 1
    assert node.run("DEL", config=config) == (0, None)
    assert node.kept() == [[], []]


def test_a_version_that_debians_plugins_do_not_speak(nodes):
    """STATUS says it before the first pod; an ADD fails, and its DEL does not."""
    node = nodes[0]
    config = {**node.config, "cniVersion": "1.1.0"}
    assert node.run("STATUS", config=config)[0] == 1
    status, error = node.run("ADD", config=config)
    assert (status, error["code"], error["msg"]) == (1, 1, "incompatible CNI versions")
    assert node.kept()[0] == ["pod-1"]
    for _ in range(2):
        assert node.run("DEL", config=config) == (0, None)
        assert node.kept() == [[], []]


def test_a_pod_of_a_newer_plugin_is_deleted_by_an_older_one(nodes):
    """Its address is given back: the delegate is asked again in the newest version that it knows."""
    node = nodes[0]
    [address] = node.add()
    kept = node.state / "pod-1"
    kept.write_bytes(kept.read_bytes().replace(b'"0.3.1"', b'"1.1.0"'))
    assert node.kept() == [["pod-1"], [address]]
    assert node.run("DEL", config={**node.config, "cniVersion": "1.1.0"}) == (0, None)
    assert node.kept() == [[], []]


NEWER = """#!/bin/sh
# Debian's plugin as one of 1.1.0 answers: STATUS and GC of the library do nothing, and a result is of that version.
here=$(basename "$0")
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}' ;;
STATUS | GC) cat >/dev/null ;;
*) sed 's/"1.1.0"/"1.0.0"/' | CNI_PATH=%s /usr/lib/cni/"$here" | sed 's/"1.0.0"/"1.1.0"/' ;;
esac
"""


def test_the_newest_version(running, nodes):
    """With `bridge` made to speak it; what it does is Debian's."""
    node = nodes[0]
    bridge = node.bin / "bridge"
    bridge.write_text(NEWER % REAL)
    bridge.chmod(0o755)
    config = {**node.config, "cniVersion": "1.1.0"}
    try:
        assert node.run("STATUS", config=config) == (0, None)
        absent = {**config, "subnetFile": "/run/none/subnet.env"}
        assert node.run("STATUS", config=absent)[1]["code"] == 50
        status, result = node.run("ADD", config=config)
        assert (status, result.get("cniVersion")) == (0, "1.1.0"), result
        assert node.run("CHECK", config={**config, "prevResult": result}) == (0, None)
        with Processes(running[0].lab.directory) as processes, Namespaces(processes) as namespaces:
            gone = namespaces.add("gone")
            assert node.run("ADD", config=config, container="gone", netns=gone.path)[0] == 0
        assert len(node.kept()[1]) == 2
        valid = [{"containerID": "pod-1", "ifname": "eth0"}]
        assert node.run("GC", config={**config, "cni.dev/valid-attachments": valid}) == (0, None)
        assert node.kept() == [["pod-1"], [result["ips"][0]["address"].partition("/")[0]]]
        assert node.run("DEL", config=config) == (0, None)
        assert node.kept() == [[], []]
    finally:
        bridge.unlink()


def test_pods_that_start_together_get_an_address_each(running, nodes):
    directory, node = running[0].lab.directory, nodes[0]
    names = [f"pod-{number}" for number in range(PODS)]
    with Processes(directory) as processes, Namespaces(processes) as namespaces:
        pods = {name: namespaces.add(name) for name in names}
        with ThreadPoolExecutor() as pool:
            added = pool.map(lambda name: node.add(container=name, netns=pods[name].path), names)
            addresses = dict(zip(names, added, strict=True))
        assert len({address for [address] in addresses.values()}) == PODS
        assert node.kept()[0] == names
        for name in names:
            assert traffic.ping(pods[name], node.host.gateway, count=2).received == 2
            assert node.run("DEL", container=name, netns=pods[name].path) == (0, None)
    assert node.kept() == [[], []]


def test_the_plugin_masquerades_if_the_daemon_does_not(nodes):
    """As with flannel: `subnet.env` says that nobody does, so the bridge is told to."""
    a, b = nodes
    del a.config["delegate"]["ipMasq"]
    try:
        a.add()
        [there] = b.add()
        assert json.loads((a.state / "pod-1").read_bytes())["ipMasq"] is True
        assert "MASQUERADE" in a.host.namespace.run("iptables-save")
        assert traffic.ping(a.host.pod, there).received == 5
        assert a.run("DEL") == (0, None)
        assert "MASQUERADE" not in a.host.namespace.run("iptables-save")
    finally:
        a.config["delegate"]["ipMasq"] = False


def test_both_families(real):
    with attached(ipv6=True) as (_, (a, b)):
        here, there = a.add(), b.add()
        assert (here, there) == (["10.5.1.2", "fd00:5:0:1::2"], ["10.5.2.2", "fd00:5:0:2::2"])
        for address in there:
            assert traffic.ping(a.host.pod, address).received == 5
        found = traffic.tcp(traffic.Way(a.host.pod, b.host.pod, there[1]), seconds=1)
        assert found.received_bytes > 1_000_000
        for node in (a, b):
            assert node.run("DEL") == (0, None)
            assert node.kept() == [[], []]
