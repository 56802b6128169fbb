"""vtun: the oldest of them, without encryption or compression, over UDP."""

from pathlib import Path

from bench.lab.process import Process
from bench.lab.topology import Host
from bench.lab.wait import until
from bench.systems.tunnels import Tunnel, first_line

PORT = 5000
SESSION = "bench"
OWN_RUN = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && mkdir -p /run/lock/vtund && exec "$@"', "sh")
"""It keeps locks and a pid file under /run; so these are nobody else's and go with it."""


class Vtun(Tunnel):
    """A server on the first host, a client on the second."""

    name = "vtun"
    what = "vtun, type tun, proto udp, no encryption, no compression"
    device = "vtun0"
    overhead_bytes = 60
    programs = ("vtund",)

    @classmethod
    def version(cls) -> str:
        """As its usage says."""
        return first_line("vtund", "-h")

    def configure(self, here: Host, there: Host) -> None:
        """One file for both would do, but the pid file is named in it."""
        del there
        (self.lab.directory / f"vtun-{here.name}.conf").write_text(
            f"options {{ port {PORT}; syslog daemon; timeout 10; }}\n"
            f"{SESSION} {{ passwd {SESSION}; type tun; device {self.device}; proto udp; encrypt no; compress no;\n"
            "  keepalive no; stat no; persist no; multi killold; }\n"
        )

    def launch(self, here: Host, there: Host) -> Process:
        """The first host serves; the second finds it listening."""
        config = ["-n", "-f", str(self.lab.directory / f"vtun-{here.name}.conf")]
        ends = ["-s", "-P", str(PORT)] if here.number == 1 else [SESSION, there.address]
        process = here.namespace.start(*OWN_RUN, "vtund", *config, *ends, name=f"vtun-{here.name}")
        if here.number == 1:
            until(lambda: here.namespace.run("ss", "-Hltn", f"sport = :{PORT}"), 5, "vtund: not listening")
        return process

    def pids(self) -> list[int]:
        """The server hands each connection to a child."""
        found = {pid for host in self.lab.hosts for pid in host.namespace.pids()}
        return [pid for pid in found if Path(f"/proc/{pid}/comm").read_text().strip() == "vtund"]
