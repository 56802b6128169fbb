"""Two hosts whose registry is Kubernetes: they find each other through an API server, and then need it no more."""

import pytest
from kube_api import joined as announced
from kube_cluster import PORT, TOLD_S, cluster
from probe import probing
from running import Log, becomes

from bench.lab import traffic
from bench.lab.wait import until

FLOWS_S = 5.0
QUIET_S = 15.0
"""From a change to all that follows from it; the longest wait between two tries of a daemon is ten."""
SILENT_S = 60.0
"""Keepalives are given up after 30 s; a try that was begun before the way is open again may take as long."""


@pytest.fixture(scope="module")
def joined(able):
    with cluster() as made:
        yield made


def test_pods_reach_each_other(joined):
    overlay, served = joined
    a, b = overlay.lab.hosts
    for here, there in ((a, b), (b, a)):
        found = traffic.ping(here.pod, there.pod_address)
        assert found.received == found.sent
        registry = overlay.status(here)["registry"]
        assert (registry["kind"], registry["source"]) == ("kube", served.api.url)
        assert registry["degraded"] is None
        said = {"kube-subnet-manager": "true", "backend-type": "", "backend-data": "null", "public-ip": here.address}
        assert served.api.annotations(here.name) == said
        env = (overlay.run_directory(here) / "subnet.env").read_text()
        assert f"FLANNEL_SUBNET={here.gateway}/24\n" in env


def test_the_cluster_is_told_that_packets_flow(joined):
    overlay, served = joined
    for host in overlay.lab.hosts:
        conditions = until(
            lambda host=host: served.api.nodes[host.name]["status"].get("conditions"), TOLD_S, "no condition"
        )
        assert {(it["type"], it["status"]) for it in conditions} == {("NetworkUnavailable", "False")}


def test_traffic_outlives_the_api_server(joined):
    overlay, served = joined
    a, b = overlay.lab.hosts
    with probing(a.pod, b.pod, b.pod_address) as probe:
        log = Log(overlay.process(b))
        served.do(served.api.stop)
        log.shows("Connection refused", TOLD_S)
        becomes(overlay, b, "degraded", TOLD_S)
        probe.flows(FLOWS_S)
        served.do(served.api.start)
        becomes(overlay, b, "ready", QUIET_S)
        probe.flows(FLOWS_S)
        log.shows("answers again", TOLD_S)
        assert "routes published" not in log.text(), "nothing has changed, so nothing is published"


def test_an_api_server_that_is_gone_without_a_word(joined):
    """No packet of it comes any more, so that a watch stands and says nothing: TCP has to find out."""
    overlay, served = joined
    a, b = overlay.lab.hosts
    rule = f"tcp sport {PORT} drop"
    rules = f"table inet fault {{ chain input {{ type filter hook input priority -400; {rule}; }}; }}\n"
    with probing(a.pod, b.pod, b.pod_address) as probe:
        b.namespace.run("nft", "-f", "-", text=rules)
        becomes(overlay, b, "degraded", SILENT_S)
        probe.flows(FLOWS_S)
        served.do(served.api.put, announced("c", "10.5.9.0/24", "192.168.77.9"))
        b.namespace.run("nft", "delete", "table", "inet", "fault")
        until(lambda: {"a", "c"} == {it["node"] for it in overlay.status(b)["peers"]}, SILENT_S, "c is not seen")
        becomes(overlay, b, "ready", QUIET_S)
        probe.flows(FLOWS_S)
    served.do(served.api.delete, "c")


def test_another_podcidr_is_followed_by_both(joined):
    overlay, served = joined
    a, b = overlay.lab.hosts
    log = Log(overlay.process(b))
    served.do(served.api.change, "b", lambda it: it["spec"].update(podCIDR="10.5.77.0/24", podCIDRs=["10.5.77.0/24"]))
    log.shows("starting over: the podCIDR of node b has changed from 10.5.2.0/24 to 10.5.77.0/24", QUIET_S)
    env = overlay.run_directory(b) / "subnet.env"
    until(lambda: "FLANNEL_SUBNET=10.5.77.1/24\n" in env.read_text(), QUIET_S, "subnet.env is the old one")
    becomes(overlay, b, "ready", QUIET_S)
    b.namespace.ip("address add 10.5.77.1/24 dev cni0")
    assert traffic.ping(a.pod, "10.5.77.1").received > 0
