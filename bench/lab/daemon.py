"""Overlay: one udp-backend daemon per host of a laboratory, its status and the law its counters obey.

Owns the registry file all of them read, each daemon's run directory, and the words `status` uses that we rely on.
Knows the daemon only as an operator does: its flags, its status, its exit status.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.lab.process import Process
from bench.lab.topology import NETWORK, NETWORK6, Host, Lab
from bench.lab.wait import LabError, until
from udpbackend.commands.status import NoAnswerError, fetch

PORT = 8285
HEALTHZ_PORT = 8286
READY_S = 60.0
"""From exec to a status that says ready, on a busy machine."""
STOP_S = 10.0
SETTLE_S = 5.0
"""How long packets may stay in flight once nothing is sent any more."""


def program() -> str:
    """The daemon of the environment this Python belongs to."""
    return str(Path(sys.executable).parent / "udp-backend")


@dataclass(frozen=True)
class Carried:
    """What a daemon has delivered so far, inner packets: `tx` to its peers, `rx` to its own pods."""

    tx_packets: int
    tx_bytes: int
    rx_packets: int
    rx_bytes: int

    def __sub__(self, earlier: "Carried") -> "Carried":
        return Carried(
            self.tx_packets - earlier.tx_packets,
            self.tx_bytes - earlier.tx_bytes,
            self.rx_packets - earlier.rx_packets,
            self.rx_bytes - earlier.rx_bytes,
        )


def carried(status: dict[str, Any]) -> Carried:
    """Reads a status document."""
    value = {counter["name"]: int(counter["value"]) for counter in status["counters"]}
    return Carried(value["tx_delivered"], value["tx_bytes"], value["rx_delivered"], value["rx_bytes"])


def unbalanced(status: dict[str, Any]) -> list[str]:
    """Where received is not delivered + dropped yet, or not at all: a sentence for each, none when all is well.

    And, because every path of the dataplane is run by one test or another: what the seccomp filter has refused.
    """
    found = [it for it in status["verdict"]["reasons"] if "seccomp filter refused" in it]
    for direction, terms in sorted(status["law"].items()):
        if terms["in_flight"]:
            found.append(f"{direction}: {terms['in_flight']} packets still in flight")
        if terms["unexplained"]:
            found.append(f"{direction}: {terms['unexplained']} packets unexplained ({terms})")
    return found


class Overlay:
    """The daemons. Entering the context starts none; leaving it stops what runs, without judging it."""

    def __init__(  # noqa: PLR0913  (each is one way in which a test differs)
        self,
        lab: Lab,
        *arguments: str,
        backend: dict[str, Any] | None = None,
        network: str = NETWORK,
        others: Sequence[dict[str, str]] = (),
        installed: str = "",
        before: Sequence[str] = (),
    ) -> None:
        """`arguments`: more flags for every daemon; `backend`: more keys for udp's Backend object, or all with a Type.

        `network` holds the laboratory's own; `others` are nodes that the registry names and nobody runs;
        `installed` is a daemon other than this environment's; `before`: words in front of its command, like those that
        take a right away.
        """
        self.lab = lab
        self._program = installed or program()
        self._arguments = arguments
        self._before = before
        self._running: dict[str, Process] = {}
        self._registry = lab.directory / "subnets.json"
        document: dict[str, Any] = {
            "Network": network,
            "SubnetLen": 24,
            "Backend": backend if backend and "Type" in backend else {"Type": "udp", "Port": PORT, **(backend or {})},
            "Nodes": [
                *({"Name": host.name, "PublicIP": host.address, "Subnet": host.subnet} for host in lab.hosts),
                *others,
            ],
        }
        if lab.ipv6:
            document |= {"EnableIPv6": True, "IPv6Network": NETWORK6}
            for host, node in zip(lab.hosts, document["Nodes"], strict=False):
                node["IPv6Subnet"] = host.subnet6
        self._registry.write_text(json.dumps(document, indent=2) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in list(self._running.values()):
            process.stop()
        self._running.clear()

    @property
    def registry(self) -> Path:
        """The file that every daemon reads and follows."""
        return self._registry

    @property
    def running(self) -> list[Host]:
        """Hosts whose daemon was started and not stopped by us."""
        return [host for host in self.lab.hosts if host.name in self._running]

    def run_directory(self, host: Host) -> Path:
        """Where that host's daemon keeps subnet.env and its status socket."""
        return self.lab.directory / host.name

    def process(self, host: Host) -> Process:
        """That host's daemon, for signals and its log."""
        return self._running[host.name]

    def start_all(self) -> None:
        """Starts a daemon on every host, then waits until all are ready."""
        for host in self.lab.hosts:
            self.launch(host)
        for host in self.lab.hosts:
            self.await_ready(host)

    def launch(self, host: Host, *arguments: str, under: Sequence[str] = ()) -> Process:
        """Starts one daemon and does not wait for it. `under`: the words of a program that starts it."""
        directory = self.run_directory(host)
        directory.mkdir(exist_ok=True)
        flags = {
            "--static-subnets": self._registry,
            "--iface": "eth0",
            "--subnet-file": directory / "subnet.env",
            "--healthz-port": HEALTHZ_PORT,
        }
        command = [
            *self._before,
            *under,
            self._program,
            *(f"{flag}={value}" for flag, value in flags.items()),
            *self._arguments,
            *arguments,
        ]
        process = host.namespace.start(*command, name=f"udp-backend-{host.name}")
        self._running[host.name] = process
        return process

    def reinstate(self, host: Host, process: Process) -> None:
        """That host's daemon is this process (again), although another one was launched after it."""
        self._running[host.name] = process

    def await_ready(self, host: Host, deadline_s: float = READY_S) -> None:
        """Waits until it has written subnet.env and calls itself ready; LabError with its log otherwise."""
        process = self.process(host)

        def ready() -> bool:
            if process.returncode is not None:
                raise LabError(f"{process.name} ended with status {process.returncode}")
            document = self._asked(host) if (self.run_directory(host) / "subnet.env").exists() else None
            return document is not None and document["verdict"]["state"] == "ready"

        try:
            until(ready, deadline_s, f"{process.name}: not ready")
        except LabError as error:
            raise LabError(f"{error}\n{process.tail()}") from None

    def status(self, host: Host) -> dict[str, Any]:
        """The status document of that host's daemon; LabError with its log when it gives none."""
        document = self._asked(host)
        if document is None:
            raise LabError(f"no status from the daemon on host {host.name}\n{self.process(host).tail()}")
        return document

    def carried(self, host: Host) -> Carried:
        """What that host's daemon has delivered since it started."""
        return carried(self.status(host))

    def settle(self, host: Host, deadline_s: float = SETTLE_S) -> dict[str, Any]:
        """Waits until nothing is in flight and returns the status; LabError if a packet stays unaccounted for.

        Counters are read one by one while packets pass, so a difference counts only when it stays.
        """
        wrong: list[str] = []

        def balanced() -> dict[str, Any] | None:
            status = self.status(host)
            wrong[:] = unbalanced(status)
            return None if wrong else status

        try:
            return until(balanced, deadline_s, f"host {host.name}: the counters do not balance")
        except LabError as error:
            raise LabError("; ".join([str(error), *wrong])) from None

    def stop(self, host: Host, deadline_s: float = STOP_S) -> None:
        """SIGTERM; LabError unless the daemon then ends in time and with status 0."""
        process = self._running.pop(host.name)
        if process.returncode is not None:
            raise LabError(f"{process.name} had ended already, status {process.returncode}\n{process.tail()}")
        code = process.stop(deadline_s)
        if code != 0:
            raise LabError(f"{process.name} ended with status {code} after SIGTERM, expected 0\n{process.tail()}")

    def stop_all(self) -> None:
        """Every running daemon: the law holds, then SIGTERM, then exit status 0. Raises the first complaint."""
        complaints = []
        for host in self.running:
            for step in (self.settle, self.stop):
                try:
                    step(host)
                except LabError as error:
                    complaints.append(str(error))
        if complaints:
            raise LabError("\n".join(complaints))

    def _asked(self, host: Host) -> dict[str, Any] | None:
        """What the daemon says; None when it says nothing.

        The `status` command asks in the same way, but starting that program takes a hundred times as long.
        """
        try:
            document: dict[str, Any] = json.loads(fetch(self.run_directory(host) / "subnet.sock"))
        except (NoAnswerError, ValueError):
            return None
        return document
