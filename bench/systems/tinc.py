"""tinc 1.0 without cipher and digest: what remains is a plain tunnel over UDP, beside a control connection over TCP."""

import re
import signal

from bench.lab.netns import run
from bench.lab.process import Process
from bench.lab.topology import Host
from bench.lab.wait import until
from bench.systems.tunnels import Tunnel, first_line

UDP_S = 30.0
"""It finds out what size of datagram passes, and sends over TCP until it knows."""
ETHERNET_BYTES = 14
"""It counts one even when it carries none."""
_NODE = re.compile(r"^ (\w+) at .* pmtu (\d+) \(min (\d+) max (\d+)\)", re.MULTILINE)


class Tinc(Tunnel):
    """One tincd per host; the second one connects to the first."""

    name = "tinc"
    what = "tinc 1.0, Cipher = none, Digest = none"
    device = "tinc0"
    overhead_bytes = 60
    programs = ("tincd",)

    @classmethod
    def version(cls) -> str:
        """As it says."""
        return first_line("tincd", "--version")

    def configure(self, here: Host, there: Host) -> None:
        """A directory with both hosts' files; the keys are for the control connection."""
        home = self.lab.directory / f"tinc-{here.name}"
        (home / "hosts").mkdir(parents=True)
        connect = f"ConnectTo = {there.name}\n" if here.number > there.number else ""
        (home / "tinc.conf").write_text(
            f"Name = {here.name}\nDeviceType = tun\nInterface = {self.device}\nAddressFamily = ipv4\n{connect}"
        )
        run(["tincd", "-c", str(home), "-K", "2048"], text="\n\n")
        key = (home / "hosts" / here.name).read_text()
        for directory in self.lab.directory.glob("tinc-*/hosts"):
            (directory / here.name).write_text(self._host_file(here) + key)
        if (other := self.lab.directory / f"tinc-{there.name}" / "hosts" / there.name).exists():
            (home / "hosts" / there.name).write_text(other.read_text())

    @staticmethod
    def _host_file(host: Host) -> str:
        return (
            f"Address = {host.address}\nSubnet = {host.subnet}\n"
            "Cipher = none\nDigest = none\nMACLength = 0\nCompression = 0\n"
        )

    def launch(self, here: Host, there: Host) -> Process:
        """Starts it."""
        del there
        home = self.lab.directory / f"tinc-{here.name}"
        command = ["tincd", "-c", str(home), "-D", "-d", "2", f"--pidfile={home}/pid"]
        return here.namespace.start(*command, name=f"tinc-{here.name}")

    def connected(self) -> None:
        """Waits until every packet of the device's MTU goes over UDP."""
        a, b = self.lab.hosts
        wanted = self.lab.mtu - self.overhead_bytes + ETHERNET_BYTES

        def over_udp() -> bool:
            a.namespace.run("ping", "-n", "-c1", "-W1", "-I", a.gateway, b.gateway, check=False)
            process = self.running[a.name]
            process.send(signal.SIGUSR2)
            found = {name: int(least) for name, _, least, _ in _NODE.findall(process.stderr.read_text())}
            return found.get(b.name, 0) >= wanted

        until(over_udp, UDP_S, "tinc: no way over UDP")
