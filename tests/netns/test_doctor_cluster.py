"""`doctor` on a node of Kubernetes: two daemons, an API server over HTTP, and faults in all that it answers for.

The API server and the files of CNI are those of the tests; daemons, doctor and what install-cni puts there are ours.
"""

import json
import sys
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

import pytest
from doctored import Diagnosis, diagnose
from kube_api import joined, node

from bench.lab.daemon import program
from bench.lab.topology import Host, Lab
from bench.lab.wait import until

NET_CONF = {"Network": "10.5.0.0/16", "Backend": {"Type": "udp"}}
PORT = 8080
READY = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
NOT_READY = "container runtime network not ready: cni plugin not initialized"
SERVER = Path(__file__).resolve().parent.parent / "doctor_api.py"


@dataclass
class Cluster:
    """Two nodes that are ready."""

    lab: Lab
    a: Host
    forbidden: Path
    """What the API server says that nobody may do, a line each."""
    url: str

    def examine(self) -> Diagnosis:
        """What the doctor says on the first node."""
        return diagnose(self.a.namespace, *flags(self.lab, self.a, self.url), *cni(self.lab))

    def say(self, name: str, **condition: str) -> None:
        """Gives a node a condition, as its kubelet does."""
        body = json.dumps({"status": {"conditions": [condition]}}).encode()

        def patch() -> int:
            with closing(HTTPConnection(self.a.address, PORT, timeout=5)) as connection:
                connection.request("PATCH", f"/api/v1/nodes/{name}/status", body)
                return connection.getresponse().status

        assert self.a.namespace.call(patch) == HTTPStatus.OK


def flags(lab, host, url):
    return (
        f"--kube-api-url={url}",
        f"--node-name={host.name}",
        f"--subnet-file={lab.directory / host.name}/subnet.env",
    )


def cni(lab):
    return (f"--cni-conf-dir={lab.directory / 'net.d'}", f"--cni-bin-dir={lab.directory / 'bin'}")


def nodes(lab, *more):
    found = [node(host.name, host.subnet) for host in lab.hosts]
    for it in found:
        it["status"]["conditions"] = [READY]
    return [*found, *more]


def install_cni(lab, subnet_file):
    """What our own command puts there, and something under the names of the plugins that others bring."""
    plugin = {"type": "flannel", "subnetFile": str(subnet_file)}
    conf = lab.directory / "cni-conf.json"
    conf.write_text(json.dumps({"name": "cbr0", "cniVersion": "1.0.0", "plugins": [plugin]}))
    lab.hosts[0].namespace.run(program(), "install-cni", *cni(lab), f"--conf-file={conf}")
    for name in ("bridge", "host-local"):
        (lab.directory / "bin" / name).symlink_to("/bin/true")


@pytest.fixture
def start(able):
    """Makes a cluster; `more` are nodes that nobody runs."""
    with Lab() as lab:

        def started(*more):
            a, url = lab.hosts[0], f"http://{lab.hosts[0].address}:{PORT}"
            files = {name: lab.directory / name for name in ("nodes.json", "net-conf.json", "forbidden")}
            files["nodes.json"].write_text(json.dumps(nodes(lab, *more)))
            files["net-conf.json"].write_text(json.dumps(NET_CONF))
            files["forbidden"].write_text("")
            a.namespace.start(
                sys.executable, str(SERVER), a.address, str(PORT), str(files["nodes.json"]), str(files["forbidden"]),
                name="api",
            )  # fmt: skip
            until(lambda: a.namespace.run("ss", "-Hltn", f"sport = :{PORT}"), 10, "the API server listens")
            for host in lab.hosts:
                (lab.directory / host.name).mkdir()
                host.namespace.start(
                    program(), "--kube-subnet-mgr", "--iface=eth0", f"--net-config-path={files['net-conf.json']}",
                    *flags(lab, host, url), name=f"daemon-{host.name}",
                )  # fmt: skip
            for host in lab.hosts:
                subnet_env = lab.directory / host.name / "subnet.env"
                until(subnet_env.exists, 20, f"the daemon of {host.name} is ready")
            install_cni(lab, lab.directory / "a" / "subnet.env")
            found = Cluster(lab, a, files["forbidden"], url)
            until(lambda: found.examine().document["daemon"] == "ready", 10, "the daemon knows its peer")
            return found

        yield started


def test_a_healthy_node_and_what_the_api_server_can_say_against_it(start):
    cluster = start()
    healthy = cluster.examine()
    healthy.nothing()
    assert healthy.not_checked == {}, "everything there is to check"

    cluster.forbidden.write_text("patch nodes/status\n")
    finding = cluster.examine().only("kube-rights")
    assert finding["evidence"] == f"{cluster.url} says that it may not patch nodes/status"
    cluster.forbidden.write_text("")

    cluster.say("a", type="Ready", status="False", reason="KubeletNotReady", message=NOT_READY)
    finding = cluster.examine().only("node-ready")
    assert finding["evidence"] == f"Ready is False: KubeletNotReady: {NOT_READY}"
    cluster.say("a", **READY)

    (cluster.lab.directory / "net.d/10-flannel.conflist").write_text("")
    assert cluster.examine().only("cni-config")["evidence"].endswith("10-flannel.conflist: it is empty")


def test_nodes_that_claim_what_is_anothers(start):
    cluster = start(
        joined("c", "10.5.2.0/24", "192.168.77.2", created="2026-02-01T00:00:00Z"),
        joined("d", "10.5.9.0/24", "192.168.77.1", created="2026-02-01T00:00:00Z"),
    )
    found = cluster.examine()
    found.only("duplicates")
    addresses, subnets = (it["evidence"] for it in found.document["findings"])
    assert addresses == (
        "192.168.77.1 is that of a with 10.5.1.0/24 and d with 10.5.9.0/24; "
        "192.168.77.2 is that of b with 10.5.2.0/24 and c with 10.5.2.0/24"
    )
    assert subnets == "10.5.2.0/24 of b and 10.5.2.0/24 of c"


def test_a_daemon_that_waits_for_an_api_server_that_is_not_there(able):
    with Lab() as lab:
        a, url = lab.hosts[0], f"http://{lab.hosts[1].address}:{PORT}"
        conf = lab.directory / "net-conf.json"
        conf.write_text(json.dumps(NET_CONF))
        (lab.directory / "a").mkdir()
        daemon = a.namespace.start(
            program(), "--kube-subnet-mgr", "--iface=eth0", f"--net-config-path={conf}", *flags(lab, a, url), name="d"
        )
        until((lab.directory / "a/subnet.sock").exists, 20, f"the daemon answers\n{daemon.tail()}")
        install_cni(lab, lab.directory / "a" / "subnet.env")
        found = diagnose(a.namespace, *flags(lab, a, url), *cni(lab))
    finding = found.only("daemon", "kube-rights", "subnet-file")
    assert finding["what"] == "the daemon is not ready"
    assert finding["evidence"].startswith("waiting for the network's configuration")
    assert found.findings["kube-rights"]["evidence"].startswith(f"no contact with the API server {url}")
    assert found.document["daemon"] == "starting"
