"""Two daemons on each host, each for a network of its own: flannel's "multiple networks".

A subnet file each, and where the registry is etcd a prefix each. A second bridge, cni1, holds the second network's pod.
"""

import json
import time
from contextlib import contextmanager

import pytest
from doctored import diagnose
from firewall_facts import require
from kernel_overlay import adapt
from test_etcd import FOLLOWED_S, PREFIX, scenery
from vxlan_facts import MTU

from bench.lab import traffic
from bench.lab.daemon import READY_S, program
from bench.lab.topology import NETWORK
from bench.lab.wait import until

SECOND, SECOND_PREFIX = "10.6.0.0/16", "/second/network"
LOOKS_S = 4.0
"""Several looks of each at its rules."""
KINDS = {
    "vxlan": ({"Type": "vxlan"}, {"Type": "vxlan", "VNI": 2}, ("flannel.1", "flannel.2")),
    "udp": ({"Type": "udp", "Port": 8285}, {"Type": "udp", "Port": 8295}, ("flannel0", "flannel1")),
}


class Second:
    """The second network's daemons on the hosts of a scene."""

    def __init__(self, scene):
        self.scene = scene
        self.processes = {}

    def folder(self, host):
        return self.scene.lab.directory / f"{host.name}-second"

    def launch(self, host, *flags):
        folder = self.folder(host)
        folder.mkdir(exist_ok=True)
        words = (
            f"--etcd-endpoints={self.scene.etcd.endpoints[0]}",
            f"--etcd-prefix={SECOND_PREFIX}",
            f"--subnet-file={folder / 'subnet.env'}",
            "--iface=eth0",
            "--ip-masq",
            "--iptables-resync=1",
        )
        process = host.namespace.start(program(), *words, *flags, name=f"second-{host.name}")
        self.processes[host.name] = process
        return process

    def status(self, host):
        words = ("status", f"--status-socket={self.folder(host) / 'subnet.sock'}", "-o=json")
        return json.loads(host.namespace.run(program(), *words, check=False) or "{}")

    def ready(self, host):
        until(lambda: self.status(host).get("verdict", {}).get("state") == "ready", READY_S, "the second is not ready")

    def subnet(self, host):
        return self.status(host)["network"]["subnet"].partition("/")[0].rpartition(".")[0]

    def pod(self, host):
        """A second interface of the pod, on a bridge of its own; its address."""
        base = self.subnet(host)
        host.namespace.ip(
            f"link add pod1 mtu {MTU} type veth peer name eth1 mtu {MTU} netns {host.pod.name}",
            f"link add cni1 mtu {MTU} type bridge",
            f"address add {base}.1/24 dev cni1",
            "link set pod1 master cni1 up",
            "link set cni1 up",
        )
        host.pod.ip(f"address add {base}.2/24 dev eth1", "link set eth1 up", f"route add {SECOND} via {base}.1")
        return f"{base}.2"


@contextmanager
def two(kind, **more):
    first, second, _ = KINDS[kind]
    with scenery() as scene:
        scene.config = {"Network": NETWORK, "SubnetLen": 24, "Backend": first} | more
        scene.configure()
        document = {"Network": SECOND, "SubnetLen": 24, "Backend": second} | more
        scene.etcd.ctl("put", f"{SECOND_PREFIX}/config", json.dumps(document))
        for host in scene.lab.hosts:
            adapt(host, MTU)
            host.namespace.run("iptables", "-P", "FORWARD", "DROP")
        yield scene, Second(scene)


@pytest.mark.parametrize("nftables", [False, True], ids=["iptables", "nftables"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_networks_live_side_by_side(kind, nftables):
    """On the version before their rules fought for ever, most packets were lost, and both said that they were ready."""
    require("iptables", "nft")
    devices = KINDS[kind][2]
    with two(kind, EnableNFTables=nftables) as (scene, second):
        a, b = scene.lab.hosts
        for host in (a, b):
            if nftables:
                host.namespace.run("iptables", "-P", "FORWARD", "ACCEPT")
            scene.overlay.launch(host, "--ip-masq", "--iptables-resync=1")
            second.launch(host)
        for host in (a, b):
            scene.overlay.await_ready(host)
            second.ready(host)
        pods = {host.name: second.pod(host) for host in (a, b)}
        shown = [it["interface"]["overlay_device"] for it in (scene.overlay.status(a), second.status(a))]
        assert sorted(shown) == list(devices)
        until(lambda: traffic.ping(a.pod, pods["b"], count=1).received, FOLLOWED_S, "the second network is not there")
        scene.reach("a", "b")
        logs = [it for host in (a, b) for it in (scene.overlay.process(host), second.processes[host.name])]
        marks = [len(log.stderr.read_text()) for log in logs]
        end = time.monotonic() + LOOKS_S
        while time.monotonic() < end:
            for target in (b.pod_address, pods["b"]):
                answer = traffic.ping(a.pod, target, count=10)
                assert answer.received == answer.sent
        for host in (a, b):
            for folder in (scene.overlay.run_directory(host), second.folder(host)):
                diagnose(host.namespace, f"--subnet-file={folder / 'subnet.env'}").nothing()
            assert second.status(host)["verdict"]["state"] == "ready"
        said = [log.stderr.read_text()[mark:] for log, mark in zip(logs, marks, strict=True)]
        assert not [text for text in said if "repaired" in text]
        scene.overlay.stop(b)  # beside the other, which goes on; and back
        scene.start("b")
        scene.reach("a", "b")
        answer = traffic.ping(a.pod, pods["b"], count=10)
        assert answer.received == answer.sent
        for process in second.processes.values():
            assert process.stop(10) == 0


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            {"Network": SECOND, "SubnetLen": 24, "Backend": {"Type": "vxlan"}},
            "flannel.1 is in use by another udp-backend of this host: stop it first, or give each network a",
        ),
        (
            {"Network": "10.5.128.0/17", "SubnetLen": 24, "Backend": {"Type": "vxlan", "VNI": 2}},
            "10.5.128.0/17 overlaps 10.5.0.0/16, which another udp-backend of this host has",
        ),
    ],
    ids=["VNI", "network"],
)
def test_what_the_first_has_is_refused_to_the_second(document, words):
    with two("vxlan") as (scene, second):
        a = scene.lab.hosts[0]
        scene.start("a", "b")
        scene.meet("a", "b")  # known is earlier than routed
        before = a.namespace.run("ip", "address"), a.namespace.run("ip", "route")
        scene.etcd.ctl("put", f"{SECOND_PREFIX}/config", json.dumps(document))
        process = second.launch(a)
        assert process.wait(READY_S) == 1
        assert process.stderr.read_text().splitlines()[-1].partition("udp-backend: ")[2].startswith(words)
        assert (a.namespace.run("ip", "address"), a.namespace.run("ip", "route")) == before
        assert scene.etcd.ctl("get", "--prefix", "--keys-only", f"{SECOND_PREFIX}/subnets") == ""
        scene.reach("a", "b")
        assert scene.etcd.ctl("get", "--prefix", "--keys-only", f"{PREFIX}/subnets")
