"""The laboratory's network: hosts joined by an underlay, each with a bridge and a pod behind it.

        pod a 10.5.1.2                                   pod b 10.5.2.2
          | eth0                                           | eth0
        cni0 10.5.1.1  host a                  host b   cni0 10.5.2.1
          + - - flannel0 (the daemon's) - - - - flannel0 - - +
                  eth0 192.168.77.1 ==== veth ==== 192.168.77.2 eth0

With more than two hosts, their eth0 meet on a bridge in a namespace of its own, `wire`. Hosts have no default route.
With `ipv6`, cni0 and the pod of host n have fd00:5:0:n::1 and ::2 as well; the underlay stays IPv4.
Owns addresses, links and what stands on them until the context ends; knows nothing of daemons or traffic.
"""

import string
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.lab.cleanup import sigterm_unwinds, undisturbed
from bench.lab.netns import Namespace, Namespaces
from bench.lab.process import Processes
from bench.lab.wait import LabError, until

NETWORK = "10.5.0.0/16"
NETWORK6 = "fd00:5::/48"
HOSTS_MAX = len(string.ascii_lowercase)
ENCAPSULATION_BYTES = 28
"""Outer IPv4 header (20) and UDP header (8)."""


@dataclass(frozen=True)
class Host:
    """One host and its pod. Names and addresses follow from the number, which starts at 1."""

    number: int
    namespace: Namespace
    pod: Namespace
    overlay_mtu: int
    """Of the pod and of cni0, in bytes."""

    @property
    def name(self) -> str:
        """A letter: a, b, c, ..."""
        return string.ascii_lowercase[self.number - 1]

    @property
    def address(self) -> str:
        """On the underlay."""
        return f"192.168.77.{self.number}"

    @property
    def subnet(self) -> str:
        """Its share of the overlay."""
        return f"10.5.{self.number}.0/24"

    @property
    def gateway(self) -> str:
        """Of cni0, the pod's way out."""
        return f"10.5.{self.number}.1"

    @property
    def pod_address(self) -> str:
        """Of the pod's eth0."""
        return f"10.5.{self.number}.2"

    @property
    def subnet6(self) -> str:
        """Its share of the overlay's IPv6 half, where the laboratory has one; likewise the next two."""
        return f"fd00:5:0:{self.number}::/64"

    @property
    def gateway6(self) -> str:
        """Of cni0."""
        return f"fd00:5:0:{self.number}::1"

    @property
    def pod_address6(self) -> str:
        """Of the pod's eth0."""
        return f"fd00:5:0:{self.number}::2"


class Lab:
    """Hosts, pods and the links between them, up and answering when the context is entered, gone when it ends."""

    def __init__(self, hosts: int = 2, mtu: int = 1500, congestion: str = "", *, ipv6: bool = False) -> None:
        """`mtu`: of the underlay, in bytes. `congestion`: TCP congestion control of every namespace; empty leaves it.

        `ipv6`: hosts and pods have IPv6 beside IPv4, and IPv6 addresses inside the overlay.

        The kernel lets a namespace choose only what the initial one allows; reno is always allowed.
        """
        if not 2 <= hosts <= HOSTS_MAX:
            raise LabError(f"a laboratory has 2 to {HOSTS_MAX} hosts, not {hosts}")
        self.mtu = mtu
        self.ipv6 = ipv6
        self.hosts: list[Host] = []
        self.directory = Path()
        """Temporary; every program's log lies here, named after it."""
        self._count = hosts
        self._congestion = congestion
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(sigterm_unwinds())
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="udpb-lab-")))
            processes = stack.enter_context(Processes(self.directory))
            namespaces = stack.enter_context(Namespaces(processes, ipv6=self.ipv6))
            # Programs end before their namespaces do, so that they end well; Namespaces ends what escaped.
            stack.callback(processes.stop_all)
            self._build(namespaces)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with undisturbed():
            self._stack.close()

    def host(self, name: str) -> Host:
        """The host of that letter."""
        return self.hosts[string.ascii_lowercase.index(name)]

    def _build(self, namespaces: Namespaces) -> None:
        self.hosts = [self._host(namespaces, number) for number in range(1, self._count + 1)]
        if len(self.hosts) == 2:
            self._veth(self.hosts[0].namespace, "eth0", self.hosts[1].namespace, self.mtu)
        else:
            self._wire(namespaces.add("wire"))
        for host in self.hosts:
            host.namespace.ip(f"address add {host.address}/24 dev eth0", "link set eth0 up")
        for host in self.hosts[1:]:
            self._answers(self.hosts[0].namespace, host.address)
        for host in self.hosts:
            self._answers(host.pod, host.gateway)
            if self.ipv6:
                self._answers(host.pod, host.gateway6)

    def _host(self, namespaces: Namespaces, number: int) -> Host:
        letter = string.ascii_lowercase[number - 1]
        host = Host(number, namespaces.add(letter), namespaces.add(f"{letter}-pod"), self.mtu - ENCAPSULATION_BYTES)
        host.namespace.sysctl("ipv4/ip_forward", "1")
        for namespace in (host.namespace, host.pod):
            for key in ("ipv4/ipfrag_time", "ipv6/ip6frag_time"):
                namespace.sysctl(key, "3600")  # or, 30 s after some fragments of a packet, an ICMP error comes from it
            if self._congestion:
                namespace.sysctl("ipv4/tcp_congestion_control", self._congestion)
        self._veth(host.pod, "eth0", host.namespace, host.overlay_mtu, there="pod0")
        host.namespace.ip(
            f"link add cni0 mtu {host.overlay_mtu} type bridge",
            f"address add {host.gateway}/24 dev cni0",
            "link set pod0 master cni0 up",
            "link set cni0 up",
        )
        host.pod.ip(
            f"address add {host.pod_address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {host.gateway}",
        )
        if self.ipv6:
            host.namespace.sysctl("ipv6/conf/all/forwarding", "1")
            host.namespace.ip(f"address add {host.gateway6}/64 dev cni0")
            host.pod.ip(f"address add {host.pod_address6}/64 dev eth0", f"route add default via {host.gateway6}")
        return host

    def _wire(self, wire: Namespace) -> None:
        wire.ip(f"link add bridge0 mtu {self.mtu} type bridge", "link set bridge0 up")
        for host in self.hosts:
            self._veth(host.namespace, "eth0", wire, self.mtu, there=f"to-{host.name}")
            wire.ip(f"link set to-{host.name} master bridge0 up")

    @staticmethod
    def _veth(namespace: Namespace, name: str, other: Namespace, mtu: int, there: str = "eth0") -> None:
        """Makes a pair of links, one end in each namespace; neither ever stands anywhere else."""
        namespace.ip(f"link add {name} mtu {mtu} type veth peer name {there} mtu {mtu} netns {other.name}")

    @staticmethod
    def _answers(namespace: Namespace, address: str) -> None:
        def answered() -> bool:
            return " 1 received" in namespace.run("ping", "-n", "-c1", "-W1", address, check=False)

        until(answered, 10, f"{namespace.name}: no answer from {address} while the laboratory was built")
