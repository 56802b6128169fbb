"""OpenVPN without cipher, authentication or keys: a plain point-to-point tunnel over UDP."""

from bench.lab.process import Process
from bench.lab.topology import Host
from bench.systems.tunnels import Tunnel, first_line

PORT = 1194


class OpenVpn(Tunnel):
    """One process per host, each the other's remote."""

    name = "openvpn"
    what = "OpenVPN, cipher none, auth none, no keys"
    device = "ovpn0"
    overhead_bytes = 60
    programs = ("openvpn",)

    @classmethod
    def version(cls) -> str:
        """As it says."""
        return first_line("openvpn", "--version")

    def launch(self, here: Host, there: Host) -> Process:
        """Starts it; addresses of its own, because it wants some."""
        mtu = str(self.lab.mtu - self.overhead_bytes)
        command = ["openvpn", "--dev", self.device, "--dev-type", "tun", "--proto", "udp", "--port", str(PORT)]
        command += ["--local", here.address, "--remote", there.address, "--cipher", "none", "--auth", "none"]
        command += ["--ifconfig", f"10.6.0.{here.number}", f"10.6.0.{there.number}", "--tun-mtu", mtu]
        return here.namespace.start(*command, name=f"openvpn-{here.name}")
