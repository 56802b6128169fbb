"""The same C turn with no event loop around it, which tells what Python costs.

Owns the launcher, which is run as `python -m bench.systems.bare_loop`: it does with the daemon's own parts what the
daemon does at its start (device, socket, route table), and then calls into C once, for good. There is no registry, no
repair, no status and no uvloop. A bench may do that; the daemon has no such mode.
"""

import argparse
import os
import socket
import subprocess
import sys
from ipaddress import IPv4Address

from bench.lab.process import Process
from bench.lab.topology import ENCAPSULATION_BYTES, NETWORK, Host, Lab
from bench.lab.wait import LabError, until
from bench.systems.base import System

PORT = 8285
DEVICE = "flannel0"
READY_S = 10.0


class BareLoop(System):
    """One launcher per host."""

    name = "udp-bare-loop"
    what = "udp-backend's C code in a bare loop, without Python's event loop"
    device = DEVICE
    overhead_bytes = ENCAPSULATION_BYTES

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._running: list[Process] = []

    def prepare(self) -> None:
        """Starts both and waits for their devices."""
        self.set_pod_mtu()
        a, b = self.lab.hosts
        for here, there in ((a, b), (b, a)):
            self._running.append(self._start(here, there))
        for host, process in zip((a, b), self._running, strict=True):
            self._await(host, process)

    def pids(self) -> list[int]:
        """Both launchers."""
        return [process.pid for process in self._running]

    def teardown(self) -> None:
        """Stops them."""
        for process in self._running:
            process.stop()

    def _start(self, here: Host, there: Host) -> Process:
        words = [here.address, here.subnet, there.address, there.subnet, str(self.lab.mtu - self.overhead_bytes)]
        return here.namespace.start(sys.executable, "-m", __name__, *words, name=f"bare-loop-{here.name}")

    @staticmethod
    def _await(host: Host, process: Process) -> None:
        def ready() -> bool:
            if process.returncode is not None:
                raise LabError(f"the bare loop ended\n{process.tail()}")
            return bool(host.namespace.run("ip", "route", "show", NETWORK))

        until(ready, READY_S, f"host {host.name}: no bare loop")


def main() -> None:
    """The launcher."""
    # Only here: whoever looks at the list of systems need not have built the extension.
    from udpbackend.dataplane.native import Dataplane, Options, ended, pack_route  # noqa: PLC0415
    from udpbackend.dataplane.tun import open_tun  # noqa: PLC0415
    from udpbackend.model import Prefix  # noqa: PLC0415
    from udpbackend.texts import OFFLOADS_OFF  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    for word in ("address", "subnet", "peer", "peer_subnet", "mtu"):
        parser.add_argument(word)
    it = parser.parse_args()
    base = it.subnet.partition("/")[0]
    tun = open_tun(DEVICE, new=True)
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    bound.bind((it.address, PORT))
    options = Options(offloads_off=OFFLOADS_OFF)
    plane = Dataplane(tun_address=IPv4Address(base), options=options)
    local = [pack_route(Prefix.parse(it.subnet)), pack_route(Prefix.parse(f"{it.address}/32"))]
    plane.publish(b"".join([*local, pack_route(Prefix.parse(it.peer_subnet), int(IPv4Address(it.peer)), PORT)]))
    plane.open_queue(0, tun.fileno(), bound.fileno())
    subprocess.run(["sysctl", "-qw", f"net.ipv4.conf.{DEVICE}.accept_local=1"], check=True)
    for words in (f"link set {DEVICE} mtu {it.mtu} up", f"address add {base}/32 dev {DEVICE}"):
        subprocess.run(["ip", *words.split()], check=True)
    subprocess.run(["ip", "route", "add", NETWORK, "dev", DEVICE, "src", base], check=True)
    never = os.eventfd(0)
    sys.exit(ended(plane.run(0, never)))


if __name__ == "__main__":
    main()
