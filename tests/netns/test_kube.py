"""Two hosts whose registry is Kubernetes: they find each other through an API server, and then need it no more."""

import asyncio
import json
import threading
from contextlib import contextmanager

import pytest
from kube_api import KubeApi, node
from probe import probing
from running import Log, becomes

from bench.lab import traffic
from bench.lab.daemon import Overlay, program
from bench.lab.topology import NETWORK, Lab
from bench.lab.wait import until

PORT = 6443
TOLD_S = 10.0
FLOWS_S = 2.0
QUIET_S = 15.0
"""From a change to all that follows from it; the longest wait between two tries of a daemon is ten."""


class Cluster(Overlay):
    """Daemons that are told where the API server is, and by their environment which node they are."""

    def __init__(self, lab):
        super().__init__(lab)
        self.net_conf = lab.directory / "net-conf.json"
        self.net_conf.write_text(json.dumps({"Network": NETWORK, "Backend": {"Type": "udp"}}))

    def launch(self, host, *arguments):
        directory = self.run_directory(host)
        directory.mkdir(exist_ok=True)
        flags = {
            "--kube-api-url": f"http://{self.lab.host('a').address}:{PORT}",
            "--net-config-path": self.net_conf,
            "--iface": "eth0",
            "--subnet-file": directory / "subnet.env",
        }
        command = ["env", f"NODE_NAME={host.name}", program(), "--kube-subnet-mgr"]
        command += [*(f"{flag}={value}" for flag, value in flags.items()), *arguments]
        process = host.namespace.start(*command, name=f"udp-backend-{host.name}")
        self._running[host.name] = process
        return process


class Served:
    """An API server inside a namespace, in a thread with a loop of its own."""

    def __init__(self, namespace, api):
        self.api = api
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=namespace.call, args=(self._loop.run_forever,))

    def __enter__(self):
        self._thread.start()
        self.do(self.api.start)
        return self

    def __exit__(self, *_):
        self.do(self.api.stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, what, *arguments):
        """Calls a method of the API server where it lives."""

        async def call():
            found = what(*arguments)
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(TOLD_S)


@contextmanager
def cluster():
    with Lab() as lab:
        a = lab.host("a")
        api = KubeApi(*(node(host.name, host.subnet) for host in lab.hosts), address=a.address, port=PORT)
        with Served(a.namespace, api) as served, Cluster(lab) as overlay:
            overlay.start_all()
            yield overlay, served
            overlay.stop_all()


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
        log.shows("Connection refused", 1)
        becomes(overlay, b, "degraded", TOLD_S)
        probe.flows(FLOWS_S)
        served.do(served.api.start)
        becomes(overlay, b, "ready", QUIET_S)
        probe.flows(FLOWS_S)
        log.shows("answers again", 1)
        assert "routes published" not in log.text(), "nothing has changed, so nothing is published"


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
