"""Hosts whose address has changed: another lease, and everything that still speaks of the old one."""

import json

import pytest
from doctored import examine
from kernel_overlay import adapt, routes, shown
from running import Log, becomes
from test_etcd import FOLLOWED_S, PREFIX, Scene, scenery
from vxlan_facts import MTU

from bench.lab import traffic
from bench.lab.daemon import READY_S
from bench.lab.topology import NETWORK
from bench.lab.wait import until

MOVED = "192.168.77.12"
MAC = "02:00:00:00:00:77"


def vxlan(scene: Scene) -> Scene:
    scene.config = {"Network": NETWORK, "SubnetLen": 24, "Backend": {"Type": "vxlan"}}
    scene.configure()
    for host in scene.lab.hosts:
        adapt(host, MTU)
    return scene


def up(scene, *hosts):
    """Starts their daemons; packets flow then, though something may be wrong."""
    for host in hosts:
        path = scene.lab.directory / f"udp-backend-{host.name}.err"
        before = path.stat().st_size if path.exists() else 0
        scene.overlay.launch(host)
        until(lambda path=path, before=before: "ready: subnet" in path.read_text()[before:], READY_S, "not ready")


def move(scene, host):
    """Stop, another address, start, as a host that DHCP has given another one; the subnet that it has now."""
    scene.overlay.stop(host)
    host.namespace.ip(f"address delete {host.address}/24 dev eth0", f"address add {MOVED}/24 dev eth0")
    up(scene, host)
    text = (scene.overlay.run_directory(host) / "subnet.env").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("FLANNEL_SUBNET=")]
    return line.partition("=")[2].rpartition(".")[0]


def new_pod(host, subnet):
    """The pod and its bridge as they are made anew with the new subnet."""
    host.namespace.ip(f"address delete {host.gateway}/24 dev cni0", f"address add {subnet}.1/24 dev cni0")
    host.pod.ip(
        f"address delete {host.pod_address}/24 dev eth0",
        f"address add {subnet}.2/24 dev eth0",
        f"route replace default via {subnet}.1",
    )
    return f"{subnet}.2"


def loss(pod, target):
    """Of ten pings, as soon as one was answered."""
    until(lambda: traffic.ping(pod, target, count=1).received, FOLLOWED_S, f"{target} is not reached")
    answer = traffic.ping(pod, target, count=10)
    return answer.sent - answer.received


def mac(host):
    return shown(host.namespace, "link", "show", "flannel.1")[0]["address"]


def test_vxlan_with_another_address_is_reached_at_once():
    """On the version before the device had its old MAC again, and the peers kept the dead one of two leases."""
    with scenery() as scene:
        vxlan(scene).start("a", "b")
        a, b = scene.lab.hosts
        scene.reach("a", "b")
        before, log = mac(b), scene.overlay.process(a)
        subnet = move(scene, b)
        assert mac(b) != before, "a device that is made anew has a MAC of its own"
        said = scene.overlay.process(b).stderr.read_text()
        assert "this host had 10.5.2.0/24 in its last run and has" in said
        assert "the lease of 10.5.2.0/24 is that of 192.168.77.2; this host is 192.168.77.12 now" in said
        # The pods of before are not reached by others any more; but this host must not lose them by its own old lease.
        becomes(scene.overlay, b, "degraded", FOLLOWED_S, "this host itself has 10.5.2.0/24 on cni0")
        assert "10.5.2.0/24" not in routes(b.namespace)
        assert traffic.ping(b.namespace, b.pod_address, count=1).received
        target = new_pod(b, subnet)
        assert loss(a.pod, target) == loss(b.pod, a.pod_address) == 0
        found = examine(scene.overlay, a).findings
        assert "does not answer" not in json.dumps(found)
        assert "no answer at all comes from the host of" in found["reach"]["what"], "the old lease's"
        assert log.returncode is None


def test_udp_with_another_address_says_that_it_has_another_subnet():
    with scenery("a", "b") as scene:
        a, b = scene.lab.hosts
        scene.reach("a", "b")
        target = new_pod(b, move(scene, b))
        assert "this host had 10.5.2.0/24 in its last run and has" in scene.overlay.process(b).stderr.read_text()
        assert loss(a.pod, target) == loss(b.pod, a.pod_address) == 0
        said = Log(scene.overlay.process(b))
        scene.overlay.stop(b)
        scene.start("b")
        assert "in its last run" not in said.text(), "nothing has changed since"


@pytest.mark.parametrize("kept", [True, False], ids=["the version before", "moved back"])
def test_of_two_leases_with_one_mac_the_newer_is_in_force(kept):
    """As the version before leaves them, and flanneld behind another --public-ip."""
    with scenery() as scene:
        a, b = scene.lab.hosts
        b.namespace.ip("address add 192.168.77.99/24 dev eth0")  # it answers, as another host's would
        names = ("10.5.9.0-24", "10.5.2.0-24") if kept else ("10.5.2.0-24", "10.5.9.0-24")
        for name in names:
            address = b.address if name == "10.5.2.0-24" else "192.168.77.99"
            data = {"VNI": 1, "VtepMAC": MAC}
            lease = {"PublicIP": address, "PublicIPv6": None, "BackendType": "vxlan", "BackendData": data}
            scene.etcd.ctl("put", f"{PREFIX}/subnets/{name}", json.dumps(lease))
        up(vxlan(scene), a, b)
        assert mac(b) == MAC, "the lease says it"
        newer, older = reversed(names)
        words = f"{older.replace('-', '/')}) is not reached: its VtepMAC {MAC} is that of node"
        becomes(scene.overlay, a, "degraded", FOLLOWED_S, words)
        assert list(routes(a.namespace)) == [newer.replace("-", "/")]
        if kept:
            found = examine(scene.overlay, a).findings
            assert "does not answer" not in json.dumps(found)
            assert words in found["daemon"]["evidence"]
            assert loss(a.pod, b.pod_address) == loss(b.pod, a.pod_address) == 0
