"""wireguard-go: the userspace WireGuard. It cannot do without encryption, and every row of it says so."""

import os

from bench.lab.process import Process
from bench.lab.topology import Host, Lab
from bench.systems.tunnels import Tunnel, first_line

PORT = 51820


class WireguardGo(Tunnel):
    """One process per host; `wg` configures it over its control socket."""

    name = "wireguard-go"
    what = "wireguard-go in userspace"
    device = "wg"
    overhead_bytes = 80
    encrypted = True
    programs = ("wireguard-go", "wg")

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._public: dict[str, str] = {}

    @classmethod
    def version(cls) -> str:
        """As it says."""
        return first_line("wireguard-go", "--version")

    def device_of(self, host: Host) -> str:
        """Its control socket is named after the device and lies in a directory that all namespaces share."""
        return f"wg{os.getpid()}{host.name}"

    def configure(self, here: Host, there: Host) -> None:
        """Makes the keys."""
        del there
        key = here.namespace.run("wg", "genkey")
        path = self.lab.directory / f"wg-{here.name}.key"
        path.touch(0o600)
        path.write_text(key)
        self._public[here.name] = here.namespace.run("wg", "pubkey", text=key).strip()

    def launch(self, here: Host, there: Host) -> Process:
        """Starts it."""
        del there
        return here.namespace.start(
            "wireguard-go", "--foreground", self.device_of(here), name=f"wireguard-go-{here.name}"
        )

    def adjust(self, here: Host, there: Host) -> None:
        """Tells it its key and its peer."""
        peer = ["peer", self._public[there.name], "endpoint", f"{there.address}:{PORT}", "allowed-ips", there.subnet]
        key = self.lab.directory / f"wg-{here.name}.key"
        here.namespace.run("wg", "set", self.device_of(here), "private-key", str(key), "listen-port", str(PORT), *peer)
