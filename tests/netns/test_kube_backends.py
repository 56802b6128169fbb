"""Each backend with Kubernetes as the registry: what the nodes announce is flannel's, and pods meet by both families.

The cluster is dual-stack; what a backend does to the kernel is looked at where it has a registry of its own.
"""

import json

import pytest
from kernel_overlay import adapt, link
from kube_api import FLANNEL
from kube_cluster import UDP, cluster
from running import Log, becomes

from bench.lab import traffic
from bench.lab.wait import until

FLANNELS = {"kube-subnet-manager": "true", "backend-data": "null"}
VXLAN, HOST_GW = {"Type": "vxlan"}, {"Type": "host-gw"}
READY_S = 20.0

pytestmark = pytest.mark.usefixtures("able")


def of_kernel(pod_mtu):
    """Prepares a laboratory for a backend that travels over IPv6 too."""

    def prepare(lab):
        for host in lab.hosts:
            adapt(host, pod_mtu, ipv6=True)

    return prepare


def pods_meet(overlay):
    a, b = overlay.lab.hosts
    for here, there in ((a, b), (b, a)):
        for address in (there.pod_address, there.pod_address6):
            found = traffic.ping(here.pod, address)
            assert found.received == found.sent, address
    env = (overlay.run_directory(a) / "subnet.env").read_text().splitlines()
    assert {f"FLANNEL_SUBNET={a.gateway}/24", f"FLANNEL_IPV6_SUBNET={a.gateway6}/64"} <= set(env)


def writes_nothing_when_started_again(overlay, served):
    b = overlay.lab.hosts[1]
    overlay.stop(b)
    before = [it.body for it in served.api.of("PATCH") if "metadata" in it.body]
    overlay.launch(b)
    overlay.await_ready(b)
    assert [it.body for it in served.api.of("PATCH") if "metadata" in it.body] == before


def vtep(host, device):
    """What flannel's vxlan says of a device."""
    return json.dumps({"VNI": 1, "VtepMAC": link(host.namespace, device)["address"]}, separators=(",", ":"))


def said_by_udp(host):
    return {"backend-type": "", "backend-data": '{"udpbackend":1,"ipv6":true}'}


def said_by_vxlan(host):
    data = {"backend-data": vtep(host, "flannel.1"), "backend-v6-data": vtep(host, "flannel-v6.1")}
    return {"backend-type": "vxlan", "public-ipv6": f"fd77::{host.number}", **data}


def said_by_host_gw(host):
    return {"backend-type": "host-gw", "public-ipv6": f"fd77::{host.number}", "backend-v6-data": "null"}


BACKENDS = {
    "udp": (UDP, {}, said_by_udp),
    "vxlan": (VXLAN, {"prepare": of_kernel(1430)}, said_by_vxlan),
    "host-gw": (HOST_GW, {"prepare": of_kernel(1500)}, said_by_host_gw),
}


@pytest.mark.parametrize(("backend", "prepared", "said"), BACKENDS.values(), ids=BACKENDS)
def test_what_is_announced(backend, prepared, said):
    with cluster(backend, ipv6=True, **prepared) as (overlay, served):
        pods_meet(overlay)
        for host in overlay.lab.hosts:
            assert served.api.annotations(host.name) == {**FLANNELS, "public-ip": host.address, **said(host)}
        writes_nothing_when_started_again(overlay, served)
        pods_meet(overlay)


def test_vxlan_keeps_its_mac_when_the_device_is_gone():
    """As after a boot: the annotation alone remembers it, and no peer has to learn another."""
    with cluster(VXLAN) as (overlay, served):
        a, b = overlay.lab.hosts
        before = served.api.annotations("b")
        overlay.stop(b)
        b.namespace.ip("link delete flannel.1")
        overlay.launch(b)
        overlay.await_ready(b)
        assert served.api.annotations("b") == before
        assert vtep(b, "flannel.1") == before["backend-data"]
        found = traffic.ping(a.pod, b.pod_address)
        assert found.received == found.sent


def test_overwrites_are_what_the_peers_send_to():
    """Another address of node b, of either family; taken away again, its own come back."""
    with cluster(VXLAN, ipv6=True, prepare=of_kernel(1430)) as (overlay, served):
        b = overlay.lab.hosts[1]
        b.namespace.ip("address add 192.168.77.102/24 dev eth0", "address add fd77::102/64 dev eth0 nodad")
        wishes = {"public-ip-overwrite": "192.168.77.102", "public-ipv6-overwrite": "fd77::102"}
        wishes = {FLANNEL + key: text for key, text in wishes.items()}
        served.do(served.api.change, "b", lambda it: it["metadata"]["annotations"].update(wishes))
        told = {"public-ip": "192.168.77.102", "public-ipv6": "fd77::102"}
        served.do(served.api.until, lambda: served.api.annotations("b").items() >= told.items())
        a = overlay.lab.hosts[0]
        until(lambda: [it["public_ip"] for it in overlay.status(a)["peers"]] == ["192.168.77.102"], READY_S, "not told")
        assert traffic.ping(a.pod, b.pod_address6).received == 5

        def withdrawn(it):
            for wish in wishes:
                del it["metadata"]["annotations"][wish]

        served.do(served.api.change, "b", withdrawn)
        told = {"public-ip": b.address, "public-ipv6": "fd77::2"}
        served.do(served.api.until, lambda: served.api.annotations("b").items() >= told.items())
        pods_meet(overlay)


def test_node_public_ips_are_taken_in_place_of_the_interfaces():
    with cluster(VXLAN, ipv6=True, prepare=of_kernel(1430)) as (overlay, served):
        a, b = overlay.lab.hosts
        b.namespace.ip("address add 192.168.77.102/24 dev eth0", "address add fd77::102/64 dev eth0 nodad")
        wishes = {"node-public-ip": "192.168.77.102", "node-public-ipv6": "fd77::102"}
        log = Log(overlay.process(b))
        served.do(
            served.api.change,
            "b",
            lambda it: it["metadata"]["annotations"].update({FLANNEL + key: text for key, text in wishes.items()}),
        )
        log.shows("starting over: the public address of node b has changed", READY_S)
        told = {"public-ip": "192.168.77.102", "public-ipv6": "fd77::102"}
        served.do(served.api.until, lambda: served.api.annotations("b").items() >= told.items())
        becomes(overlay, b, "ready", READY_S)
        until(lambda: [it["public_ip"] for it in overlay.status(a)["peers"]] == ["192.168.77.102"], READY_S, "not told")
        pods_meet(overlay)
