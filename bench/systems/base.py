"""What a system under test is: something that carries packets between the two hosts of a laboratory.

Owns the small interface behind which each system stands, and what most of them have in common: host addresses, pods
behind a bridge whose MTU the system sets, and a device whose counters prove what it carried. Must not know links,
workloads or other systems.
"""

import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from bench import meter
from bench.lab.topology import Host, Lab
from bench.lab.traffic import Way

PATHS = {
    "host-host": "from a host's own overlay address to the other host's",
    "pod-pod": "between pods behind a bridge on each host, so that both hosts forward",
}


@dataclass(frozen=True)
class Carried:
    """Bytes that a host's side of a system has sent to the other host and received from it so far."""

    tx_bytes: int
    rx_bytes: int

    def __sub__(self, earlier: "Carried") -> "Carried":
        return Carried(self.tx_bytes - earlier.tx_bytes, self.rx_bytes - earlier.rx_bytes)


class System(ABC):
    """`prepare`, then any number of workloads, then `teardown`; the laboratory outlives it and cleans up after it."""

    name: ClassVar[str]
    what: ClassVar[str]
    """One line for --help and the page."""
    device: ClassVar[str]
    """In a host's namespace; its counters are the proof."""
    overhead_bytes: ClassVar[int]
    """By how much its MTU is smaller than the underlay's."""
    encrypted: ClassVar[bool] = False
    programs: ClassVar[tuple[str, ...]] = ()
    """What has to be found for it to run at all."""
    paths: ClassVar[tuple[str, ...]] = tuple(PATHS)
    against: ClassVar[str] = ""
    """Another system, beside the reference, that its ratios are taken to."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    @classmethod
    def missing(cls) -> str:
        """What it needs and this machine lacks; empty when it can run."""
        return ", ".join(program for program in cls.programs if shutil.which(program) is None)

    @abstractmethod
    def prepare(self) -> None:
        """Makes the overlay; packets pass when it returns or shortly after."""

    def way(self, path: str) -> Way:
        """The ends of a path, from the first host's side to the second's."""
        a, b = self.lab.hosts
        if path == "pod-pod":
            return Way(a.pod, b.pod, b.pod_address, a.pod_address)
        return Way(a.namespace, b.namespace, self.address(b), self.address(a))

    def address(self, host: Host) -> str:
        """Of the host in the overlay: that of its bridge, which only the overlay leads to."""
        return host.gateway

    def device_of(self, host: Host) -> str:
        """Its device on that host, where the two need different names."""
        del host
        return self.device

    def carried(self, host: Host, seen: meter.Seen) -> Carried:
        """What the system's own device counted, of what was seen in the host's namespace."""
        link = seen.links[self.device_of(host)]
        return Carried(link.tx_bytes, link.rx_bytes)

    @classmethod
    def version(cls) -> str:
        """What its program says of itself; empty for the kernel and for us, who are told by kernel and commit."""
        return ""

    def drops(self, host: Host) -> int:
        """Packets that the system itself has dropped so far, beside what links and sockets count."""
        del host
        return 0

    def pids(self) -> list[int]:
        """Its processes, whose processor time is its price; none for what the kernel does."""
        return []

    def teardown(self) -> None:  # noqa: B027  (most systems have nothing to stop)
        """Stops its processes; what it made in namespaces goes with them."""

    def set_pod_mtu(self) -> None:
        """Gives pods and bridges the MTU that fits the system."""
        mtu = self.lab.mtu - self.overhead_bytes
        for host in self.lab.hosts:
            host.namespace.ip(f"link set pod0 mtu {mtu}", f"link set cni0 mtu {mtu}")
            host.pod.ip(f"link set eth0 mtu {mtu}")
