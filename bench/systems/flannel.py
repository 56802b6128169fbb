"""flanneld's own udp backend, where there is a flanneld: `FLANNELD=path`, and etcd from Debian's etcd-server.

Owns an etcd on the first host and what flanneld expects to find in it: the network's configuration and, so that each
host gets the subnet that its pod already lives in, a lease for each.
"""

import base64
import json
import os
import shutil
import urllib.request

from bench.lab.process import Process
from bench.lab.topology import ENCAPSULATION_BYTES, NETWORK, Host
from bench.lab.wait import LabError, until
from bench.systems.base import System
from bench.systems.tunnels import first_line

ETCD_PORT = 2379
PREFIX = "/coreos.com/network"
START_S = 20.0


class FlannelUdp(System):
    """One flanneld per host."""

    name = "flannel-udp"
    what = "flanneld's udp backend (FLANNELD=path, needs etcd)"
    device = "flannel0"
    overhead_bytes = ENCAPSULATION_BYTES

    running: dict[str, Process]

    @classmethod
    def missing(cls) -> str:
        """A flanneld that was named, and an etcd."""
        program = os.environ.get("FLANNELD", "")
        lacking = [] if shutil.which(program) else ["FLANNELD=path of a flanneld"]
        lacking += [] if shutil.which("etcd") else ["etcd"]
        return " and ".join(lacking)

    @classmethod
    def version(cls) -> str:
        """As it says."""
        return first_line(os.environ.get("FLANNELD", "flanneld"), "--version")

    def prepare(self) -> None:
        """etcd, then both daemons."""
        self.set_pod_mtu()
        self.running = {}
        first = self.lab.hosts[0]
        self.running["etcd"] = self._etcd(first)
        for host in self.lab.hosts:
            self.running[host.name] = self._flanneld(host, first)
        for host in self.lab.hosts:
            self._await(host)

    def start_again(self, host: Host) -> None:
        """A flanneld in place of one that has ended."""
        (self.lab.directory / f"flannel-{host.name}.env").unlink(missing_ok=True)
        self.running[host.name] = self._flanneld(host, self.lab.hosts[0])
        self._await(host)

    def pids(self) -> list[int]:
        """Both daemons; etcd moves no packets."""
        return [process.pid for name, process in self.running.items() if name != "etcd"]

    def teardown(self) -> None:
        """Stops all, etcd last."""
        for process in reversed(getattr(self, "running", {}).values()):
            process.stop()

    def _etcd(self, host: Host) -> Process:
        url = f"http://{host.address}:{ETCD_PORT}"
        urls = [
            "--listen-client-urls",
            url,
            "--advertise-client-urls",
            url,
            "--listen-peer-urls",
            "http://127.0.0.1:2380",
        ]
        directory = str(self.lab.directory / "etcd")
        process = host.namespace.start("etcd", "--data-dir", directory, *urls, name="etcd")
        config = {"Network": NETWORK, "SubnetLen": 24, "Backend": {"Type": "udp"}}

        def filled() -> bool:
            if process.returncode is not None:
                raise LabError(f"etcd ended\n{process.tail()}")
            try:
                _put(host, f"{url}/v3/kv/put", f"{PREFIX}/config", config)
            except OSError:
                return False
            return True

        until(filled, START_S, "etcd: no answer")
        for owner in self.lab.hosts:
            key = f"{PREFIX}/subnets/{owner.subnet.replace('/', '-')}"
            _put(host, f"{url}/v3/kv/put", key, {"PublicIP": owner.address, "PublicIPv6": None, "BackendType": "udp"})
        return process

    def _flanneld(self, host: Host, first: Host) -> Process:
        flags = {
            "etcd-endpoints": f"http://{first.address}:{ETCD_PORT}",
            "iface": "eth0",
            "subnet-file": str(self.lab.directory / f"flannel-{host.name}.env"),
            "iptables-forward-rules": "false",
        }
        command = [os.environ["FLANNELD"], *(f"--{name}={value}" for name, value in flags.items())]
        return host.namespace.start(*command, name=f"flanneld-{host.name}")

    def _await(self, host: Host) -> None:
        env, process = self.lab.directory / f"flannel-{host.name}.env", self.running[host.name]

        def ready() -> bool:
            if process.returncode is not None:
                raise LabError(f"flanneld ended with status {process.returncode}\n{process.tail()}")
            return env.exists()

        try:
            until(ready, START_S, f"host {host.name}: flanneld is not ready")
        except LabError as error:
            raise LabError(f"{error}\n{process.tail()}") from None
        gateway = f"{host.gateway}/24"
        if gateway not in env.read_text():
            raise LabError(
                f"flanneld on host {host.name} has another subnet than its pod, {gateway}: {env.read_text()}"
            )


def _put(host: Host, url: str, key: str, value: object) -> None:
    """Writes one key, from inside the host: nowhere else is etcd reached."""

    def text(data: str) -> str:
        return base64.b64encode(data.encode()).decode()

    body = json.dumps({"key": text(key), "value": text(json.dumps(value))}).encode()

    def send() -> None:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=2) as answer:  # noqa: S310  (our own etcd)
            answer.read()

    host.namespace.call(send)
