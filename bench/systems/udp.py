"""Our own daemon, with default settings: one per host.

Knows the daemon as an operator does: its flags, its device and the counters in its status.
"""

import json
import os
import shutil
from typing import ClassVar

from bench.lab.daemon import Overlay
from bench.lab.topology import ENCAPSULATION_BYTES, Host, Lab
from bench.systems.base import System
from bench.systems.tunnels import first_line
from udpbackend.commands.status import fetch
from udpbackend.host.fou_probe import probe


class Udp(System):
    """udp-backend from the environment that this Python belongs to."""

    name = "udp"
    what = "udp-backend, default settings"
    device = "flannel0"
    overhead_bytes = ENCAPSULATION_BYTES
    against = "udp-bare-loop"
    arguments: ClassVar[tuple[str, ...]] = ()
    """Flags of the daemon beside those that every host's has."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.overlay = self.make_overlay()

    def make_overlay(self) -> Overlay:
        """The daemons, not yet started."""
        return Overlay(self.lab, *self.arguments)

    def prepare(self) -> None:
        """Starts the daemons and waits until they are ready."""
        self.set_pod_mtu()
        self.overlay.start_all()

    def drops(self, host: Host) -> int:
        """What the daemon has dropped, whatever the cause."""
        status = json.loads(fetch(self.overlay.run_directory(host) / "subnet.sock"))
        return sum(int(counter["value"]) for counter in status["counters"] if "_drop" in counter["name"])

    def pids(self) -> list[int]:
        """Both daemons."""
        return [self.overlay.process(host).pid for host in self.overlay.running]

    def teardown(self) -> None:
        """Stops the daemons; they have to end well and to account for every packet."""
        self.overlay.stop_all()


class UdpOrdinary(Udp):
    """The same with no priority for the threads that move packets: what a daemon is that lacks the right to it."""

    name = "udp-nice-0"
    what = "udp-backend with --nice=0: no priority for packets"
    against = Udp.name
    arguments = ("--nice=0",)


class UdpUnfiltered(Udp):
    """Beside `Udp`: what the filter of system calls costs."""

    name = "udp-seccomp-off"
    what = "udp-backend with --seccomp=false: no filter of system calls"
    against = Udp.name
    arguments = ("--seccomp=false",)


class UdpMerging(Udp):
    """Beside `Udp`: what it costs to deliver UDP datagrams one by one."""

    name = "udp-merging"
    what = "udp-backend with --offloads=udp-coalesce=on: UDP datagrams are delivered merged"
    against = Udp.name
    arguments = ("--offloads=udp-coalesce=on",)


class UdpKernel(Udp):
    """The same wire format carried by the kernel, where it has FOU."""

    name = "udp-kernel"
    what = "udp-backend with --dataplane=kernel: Linux's FOU carries the packets"
    against = Udp.name
    arguments = ("--dataplane=kernel",)

    @classmethod
    def missing(cls) -> str:
        """FOU, which not every kernel has."""
        verdict = probe(ipv6=False)
        lacking = verdict.missing or verdict.unproven
        return f"a kernel with FOU, not {os.uname().release} ({lacking})" if lacking else ""


class UdpBefore(Udp):
    """Another version of ours, in turn with this one: what a change is worth on the machine at hand."""

    name = "udp-before"
    what = "another version's udp-backend (BEFORE=path of it)"
    against = Udp.name

    @classmethod
    def missing(cls) -> str:
        """A daemon that was named."""
        return "" if shutil.which(os.environ.get("BEFORE", "")) else "BEFORE=path of another version's udp-backend"

    @classmethod
    def version(cls) -> str:
        """As it says."""
        return first_line(os.environ["BEFORE"], "--version")

    def make_overlay(self) -> Overlay:
        """The daemons, not yet started."""
        return Overlay(self.lab, installed=os.environ["BEFORE"])
