"""A real etcd for tests: one or three members, plain or with TLS, stopped by their pids when the context ends.

Owns the processes, their data and the certificates (made with the openssl program). Knows nothing of what is stored:
`ctl` is etcdctl, the view from outside.
"""

import shutil
import signal
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from free_ports import free_ports

from bench.lab.etcd import MEMORY, READY_S, ctl, member
from bench.lab.netns import run
from bench.lab.process import Process, Processes
from bench.lab.wait import LabError, until

PROGRAMS = ("etcd", "etcdctl", "openssl")

EXTENSIONS = """[ca]
basicConstraints = critical, CA:TRUE
[server]
subjectAltName = DNS:localhost, IP:{address}
extendedKeyUsage = serverAuth, clientAuth
[client]
extendedKeyUsage = clientAuth
"""


def missing() -> str:
    """What an etcd needs and this machine lacks; empty when it can run."""
    return ", ".join(program for program in PROGRAMS if shutil.which(program) is None)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority of our own."""

    def __init__(self, directory: Path, address: str = "127.0.0.1") -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._extensions = directory / "extensions"
        self._extensions.write_text(EXTENSIONS.format(address=address))
        self.ca = self._make("ca", "authority", signer=None)
        self.server = self._make("server", "etcd", signer=self.ca)
        self.client = self._make("client", "node", signer=self.ca)

    def _make(self, kind: str, name: str, signer: Pair | None) -> Pair:
        pair = Pair(self._directory / f"{kind}.pem", self._directory / f"{kind}.key")
        request = self._directory / f"{kind}.csr"
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout", str(pair.key)]
        run(["openssl", "req", *new, "-subj", f"/CN={name}", "-out", str(request)])
        sign = ["openssl", "x509", "-req", "-days", "2", "-in", str(request), "-out", str(pair.cert)]
        sign += ["-CA", str(signer.cert), "-CAkey", str(signer.key)] if signer else ["-key", str(pair.key)]
        run([*sign, "-extfile", str(self._extensions), "-extensions", kind])
        return pair


class Etcd:
    """A cluster that runs from entering the context to its end.

    `authority`: TLS; with `mutual` a client must show a certificate too. `enter`: what leads into a namespace, put
    before the command line of each member and of etcdctl, for example `nsenter --net=... --`.
    """

    def __init__(  # noqa: PLR0913  (what the tests vary, each by its name)
        self,
        *,
        members: int = 1,
        authority: Authority | None = None,
        mutual: bool = False,
        address: str = "127.0.0.1",
        ports: Sequence[int] = (),
        enter: Sequence[str] = (),
    ) -> None:
        self._authority = authority
        self._mutual = mutual
        self._address = address
        self._enter = list(enter)
        ports = ports or free_ports(2 * members, address)
        self._clients, self._peers = list(ports[:members]), list(ports[members:])
        self._login: tuple[str, ...] = ()
        self._stack = ExitStack()
        self._running: dict[int, Process] = {}

    @property
    def endpoints(self) -> tuple[str, ...]:
        """A URL for each member."""
        scheme = "https" if self._authority else "http"
        return tuple(f"{scheme}://{self._address}:{port}" for port in self._clients)

    @property
    def running(self) -> tuple[int, ...]:
        """The members that have not been stopped."""
        return tuple(self._running)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory = Path(tempfile.mkdtemp(prefix="udpb-etcd-", dir=MEMORY if MEMORY.is_dir() else None))
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._processes = stack.enter_context(Processes(self.directory))
            for number in range(len(self._clients)):
                self.start(number)
            self.ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for number in self.running:  # a cluster that loses its members one by one would take seconds over each
            self.kill(number)
        self._stack.close()

    def start(self, number: int = 0) -> None:
        """Starts a member, for the first time or again, with the data it has."""
        peers = [f"http://{self._address}:{port}" for port in self._peers]
        command = member(number, self.directory / f"m{number}", self.endpoints, peers)
        if self._authority:
            server = self._authority.server
            command += ["--cert-file", str(server.cert), "--key-file", str(server.key)]
            if self._mutual:
                command += ["--client-cert-auth", "--trusted-ca-file", str(self._authority.ca.cert)]
        self._running[number] = self._processes.start([*self._enter, *command], f"m{number}")

    def ready(self) -> None:
        """Waits until every running member serves."""
        until(self._healthy, READY_S, f"etcd: {self._running[0].tail()}")

    def stop(self, number: int = 0) -> None:
        """Stops a member; its data stays."""
        self._running.pop(number).stop()

    def kill(self, number: int = 0) -> None:
        """Ends a member as a crash would."""
        process = self._running.pop(number)
        process.send(9)
        process.wait(READY_S)

    def silence(self, number: int = 0) -> None:
        """Stops a member where it stands: its connections stay open, its kernel answers, and it does not."""
        self._running[number].freeze()

    def wake(self, number: int = 0) -> None:
        """Lets it go on."""
        self._running[number].send(signal.SIGCONT)

    def empty(self) -> None:
        """Restarts a single member with no data: another cluster at the same place."""
        self.stop()
        shutil.rmtree(self.directory / "m0")
        self.start()
        self.ready()

    def restore(self, snapshot: Path) -> None:
        """Restarts a single member with the data of a snapshot, as after a disaster."""
        self.stop()
        data, peer = self.directory / "m0", f"http://{self._address}:{self._peers[0]}"
        shutil.rmtree(data)
        member = ["--name", "m0", "--initial-cluster", f"m0={peer}", "--initial-advertise-peer-urls", peer]
        run(["env", "ETCDCTL_API=3", "etcdctl", "snapshot", "restore", str(snapshot), "--data-dir", str(data), *member])
        self.start()
        self.ready()

    def ctl(self, *arguments: str, text: str = "") -> str:
        """What etcdctl prints, without the last newline."""
        running = ",".join(self.endpoints[number] for number in self._running)
        command = [*self._enter, *ctl(running, *self._login)]
        if self._authority:
            client = self._authority.client
            command += ["--insecure-skip-tls-verify", "--cert", str(client.cert), "--key", str(client.key)]
        return run([*command, *arguments], text=text).removesuffix("\n")

    def require_login(self, user: str, password: str) -> None:
        """From now on only `user` may read and write, and nobody without a password; `ctl` is root."""
        for name, secret in (("root", "rootpw"), (user, password)):
            self.ctl("user", "add", f"{name}:{secret}")
        self.ctl("role", "add", "all")
        self.ctl("role", "grant-permission", "all", "--prefix=true", "readwrite", "/")
        self.ctl("user", "grant-role", user, "all")
        self.ctl("user", "grant-role", "root", "root")
        self.ctl("auth", "enable")
        self._login = ("--user", "root:rootpw")

    def leases(self) -> list[int]:
        """The ids of all leases there are."""
        return [int(line, 16) for line in self.ctl("lease", "list").splitlines()[1:]]

    def _healthy(self) -> bool:
        for number, process in self._running.items():
            if process.returncode is not None:
                raise LabError(f"etcd member {number} has ended\n{process.tail()}")
        try:
            return "unhealthy" not in self.ctl("endpoint", "health")
        except LabError:
            return False
