"""A cluster for `doctor`: two nodes with real daemons, an API server over HTTP, and what install-cni puts on the first.

Owns these programs, their files and what they are told. Must not know any finding.
"""

import json
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

from doctored import Diagnosis, diagnose
from kube_api import node

from bench.lab.daemon import program
from bench.lab.process import Process
from bench.lab.topology import Host, Lab
from bench.lab.wait import until

NET_CONF = {"Network": "10.5.0.0/16", "Backend": {"Type": "udp"}}
PORT = 8080
READY = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
READY_S = 20.0
SERVER = Path(__file__).resolve().parent.parent / "doctor_api.py"


@dataclass
class Cluster:
    """The nodes of a laboratory; the API server runs on the first."""

    lab: Lab

    @property
    def a(self) -> Host:
        """Where the doctor is asked."""
        return self.lab.hosts[0]

    @property
    def url(self) -> str:
        """Of the API server."""
        return f"http://{self.a.address}:{PORT}"

    @property
    def conf(self) -> Path:
        """Where the first node's container runtime looks."""
        return self.lab.directory / "net.d"

    def file(self, name: str) -> Path:
        """What the programs are told: nodes.json and orders for the API server, net-conf.json for the daemons."""
        return self.lab.directory / name

    def serve(self, *nodes: dict) -> None:
        """Starts the API server and waits until it listens."""
        self.file("nodes.json").write_text(json.dumps(nodes))
        self.order()
        files = (str(self.file(name)) for name in ("nodes.json", "orders"))
        self.a.namespace.start(sys.executable, str(SERVER), self.a.address, str(PORT), *files, name="api")
        until(lambda: self.a.namespace.run("ss", "-Hltn", f"sport = :{PORT}"), 10, "the API server listens")

    def order(self, *lines: str) -> None:
        """What it is to do from now on, see doctor_api.py."""
        self.file("orders").write_text("".join(f"{line}\n" for line in lines))

    def launch(self, host: Host, *more: str) -> Process:
        """Starts one daemon and does not wait for it."""
        self.file("net-conf.json").write_text(json.dumps(NET_CONF))
        self.file(host.name).mkdir(exist_ok=True)
        command = (program(), "--kube-subnet-mgr", f"--net-config-path={self.file('net-conf.json')}")
        return host.namespace.start(*command, *self.flags(host), *more, name=f"daemon-{host.name}")

    def flags(self, host: Host) -> tuple[str, ...]:
        """Those that a daemon and its doctor have in common."""
        subnet_file = self.file(host.name) / "subnet.env"
        return (f"--kube-api-url={self.url}", f"--node-name={host.name}", f"--subnet-file={subnet_file}")

    def cni(self) -> tuple[str, ...]:
        """Flags for the runtime's directories."""
        return (f"--cni-conf-dir={self.conf}", f"--cni-bin-dir={self.file('bin')}")

    def install_cni(self) -> None:
        """What our own command puts there, and something under the names of the plugins that others bring."""
        plugin = {"type": "flannel", "subnetFile": str(self.file("a") / "subnet.env")}
        conf = self.file("cni-conf.json")
        conf.write_text(json.dumps({"name": "cbr0", "cniVersion": "1.0.0", "plugins": [plugin]}))
        self.a.namespace.run(program(), "install-cni", *self.cni(), f"--conf-file={conf}")
        for name in ("bridge", "host-local"):
            (self.file("bin") / name).symlink_to("/bin/true")

    def examine(self) -> Diagnosis:
        """What the doctor says on the first node."""
        return diagnose(self.a.namespace, *self.flags(self.a), *self.cni())

    def say(self, name: str, **condition: str) -> None:
        """Gives a node a condition, as its kubelet does."""
        body = json.dumps({"status": {"conditions": [condition]}}).encode()

        def patch() -> int:
            with closing(HTTPConnection(self.a.address, PORT, timeout=5)) as connection:
                connection.request("PATCH", f"/api/v1/nodes/{name}/status", body)
                return connection.getresponse().status

        assert self.a.namespace.call(patch) == HTTPStatus.OK


def ready(name: str, *cidrs: str) -> dict:
    """A Node whose kubelet is content."""
    it = node(name, *cidrs)
    it["status"]["conditions"] = [READY]
    return it


@contextmanager
def cluster(*more: dict, prepare=lambda _: None, flags: tuple[str, ...] = ("--iface=eth0",)):
    """Both nodes ready; `more` are nodes that nobody runs, `prepare` is done to each host before its daemon starts."""
    with Lab() as lab:
        made = Cluster(lab)
        made.serve(*(ready(host.name, host.subnet) for host in lab.hosts), *more)
        for host in lab.hosts:
            prepare(host)
            made.launch(host, *flags)
        for host in lab.hosts:
            until((made.file(host.name) / "subnet.env").exists, READY_S, f"the daemon of {host.name} is ready")
        made.install_cni()
        until(lambda: made.examine().document["daemon"] == "ready", READY_S, "the daemon is content")
        yield made
