"""etcd for a laboratory: one member in a namespace, gone with its data when the context ends.

Owns the command line of a member, which clusters of tests use as well, and where its data lies. Knows nothing of what
is stored.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.lab.netns import Namespace
from bench.lab.wait import LabError, until

READY_S = 20.0
MEMORY = Path("/dev/shm")  # noqa: S108  (a directory of our own is made in it, with a random name)
"""Data lies here where it can: etcd waits for the disk at every write."""
CLIENT_PORT, PEER_PORT = 2379, 2380


def member(number: int, data: Path, clients: Sequence[str], peers: Sequence[str]) -> list[str]:
    """The command line of one member of a cluster; the URLs are those of all of them, in their order."""
    command = ["etcd", "--name", f"m{number}", "--data-dir", str(data)]
    command += ["--heartbeat-interval", "50", "--election-timeout", "500", "--logger", "zap"]
    command += ["--listen-client-urls", clients[number], "--advertise-client-urls", clients[number]]
    command += ["--listen-peer-urls", peers[number], "--initial-advertise-peer-urls", peers[number]]
    return [*command, "--initial-cluster", ",".join(f"m{i}={url}" for i, url in enumerate(peers))]


def ctl(endpoints: str, *arguments: str) -> list[str]:
    """The command line of etcdctl."""
    return ["env", "ETCDCTL_API=3", "etcdctl", "--endpoints", endpoints, *arguments]


class Server(NamedTuple):
    """A member that serves."""

    url: str
    pid: int


@contextmanager
def serving(namespace: Namespace, address: str) -> Iterator[Server]:
    """A single member at an address of the namespace."""
    url, peer = (f"http://{address}:{port}" for port in (CLIENT_PORT, PEER_PORT))
    with tempfile.TemporaryDirectory(prefix="udpb-etcd-", dir=MEMORY if MEMORY.is_dir() else None) as data:
        process = namespace.start(*member(0, Path(data), [url], [peer]), name="etcd")

        def healthy() -> bool:
            if process.returncode is not None:
                raise LabError(f"etcd has ended\n{process.tail()}")
            try:
                namespace.run(*ctl(url, "endpoint", "health"))
            except LabError:
                return False
            return True

        try:
            until(healthy, READY_S, "etcd: not serving")
            yield Server(url, process.pid)
        finally:
            process.stop()
