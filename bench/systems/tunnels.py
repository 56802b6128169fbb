"""Other userspace tunnels: one process per host that reads packets from a TUN device and sends them over UDP.

Owns what these systems have in common; each one's program and configuration stand in a file of its own. Configuration
and keys are made anew in the laboratory's directory every time. Each is set up without encryption where it can be.
"""

import subprocess
from abc import abstractmethod

from bench.lab.process import Process
from bench.lab.topology import Host, Lab
from bench.lab.wait import LabError, until
from bench.systems.base import System

DEVICE_S = 10.0
"""How long a program may take to make its device."""


class Tunnel(System):
    """Two processes, a device on each host, and a route through it to the other host's subnet."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.running: dict[str, Process] = {}

    def prepare(self) -> None:
        """Starts both programs, then brings up their devices."""
        self.set_pod_mtu()
        a, b = self.lab.hosts
        for here, there in ((a, b), (b, a)):
            self.configure(here, there)
        for here, there in ((a, b), (b, a)):
            self.running[here.name] = self.launch(here, there)
        for here, there in ((a, b), (b, a)):
            self._bring_up(here, there)
        self.connected()

    def configure(self, here: Host, there: Host) -> None:
        """Writes the configuration of one host."""

    @abstractmethod
    def launch(self, here: Host, there: Host) -> Process:
        """Starts one host's program, in the foreground."""

    def adjust(self, here: Host, there: Host) -> None:
        """What there is to do between a device that exists and one that is up."""

    def connected(self) -> None:
        """Waits for what has to be so before figures are taken."""

    def pids(self) -> list[int]:
        """Both processes."""
        return [process.pid for process in self.running.values()]

    def teardown(self) -> None:
        """Stops both."""
        for process in self.running.values():
            process.stop()

    def _bring_up(self, here: Host, there: Host) -> None:
        device, process = self.device_of(here), self.running[here.name]

        def there_is_one() -> bool:
            if process.returncode is not None:
                raise LabError(f"{process.name} ended with status {process.returncode}\n{process.tail()}")
            return bool(here.namespace.run("ip", "link", "show", "dev", device, check=False))

        try:
            until(there_is_one, DEVICE_S, f"{self.name} on host {here.name}: no device {device}")
        except LabError as error:
            raise LabError(f"{error}\n{process.tail()}") from None
        self.adjust(here, there)
        here.namespace.ip(
            f"link set {device} mtu {self.lab.mtu - self.overhead_bytes} up",
            f"route replace {there.subnet} dev {device} src {here.gateway}",
        )


def first_line(*command: str) -> str:
    """What a program says of its version."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next((line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()), "")
