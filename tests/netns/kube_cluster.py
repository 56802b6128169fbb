"""Daemons whose registry is Kubernetes, in a laboratory, and the API server that they ask.

Owns what the daemons are told and the thread that the API server lives in. Must not know what a test expects.
"""

import asyncio
import json
import threading
from contextlib import contextmanager

from kube_api import KubeApi, node

from bench.lab.daemon import Overlay, program
from bench.lab.topology import NETWORK, NETWORK6, Lab
from bench.lab.wait import until

PORT = 6443
TOLD_S = 10.0
UDP = {"Type": "udp"}


class Cluster(Overlay):
    """Daemons that are told where the API server is, and by their environment which node they are."""

    def __init__(self, lab, backend, *, confine=lambda _: (), arguments=(), **more_conf):
        """`confine`: what to put before a daemon with this run directory; `more_conf`: more keys of the network's."""
        super().__init__(lab, *arguments)
        self._confine = confine
        self.net_conf = lab.directory / "net-conf.json"
        ipv6 = {"EnableIPv6": True, "IPv6Network": NETWORK6} if lab.ipv6 else {}
        self.net_conf.write_text(json.dumps({"Network": NETWORK, "Backend": backend, **ipv6, **more_conf}))

    def launch(self, host, *arguments):
        directory = self.run_directory(host)
        directory.mkdir(exist_ok=True)
        flags = {
            "--kube-api-url": f"http://{self.lab.host('a').address}:{PORT}",
            "--net-config-path": self.net_conf,
            "--iface": "eth0",
            "--subnet-file": directory / "subnet.env",
        }
        command = [*self._confine(directory), "env", f"NODE_NAME={host.name}", program(), "--kube-subnet-mgr"]
        command += [*(f"{flag}={value}" for flag, value in flags.items()), *self._arguments, *arguments]
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
def cluster(backend=UDP, *, ipv6=False, prepare=lambda _: None, **of_cluster):
    """Two nodes that are ready and know each other; `prepare` is done to the laboratory before there is a daemon."""
    with Lab(ipv6=ipv6) as lab:
        prepare(lab)
        a = lab.host("a")
        nodes = [node(it.name, it.subnet, *([it.subnet6] if ipv6 else [])) for it in lab.hosts]
        api = KubeApi(*nodes, address=a.address, port=PORT)
        with Served(a.namespace, api) as served, Cluster(lab, backend, **of_cluster) as overlay:
            overlay.start_all()
            for host in lab.hosts:  # whoever is ready first hears of the other some time later
                until(lambda host=host: overlay.status(host)["routes"], TOLD_S, f"{host.name} knows nobody")
            yield overlay, served
            overlay.stop_all()
