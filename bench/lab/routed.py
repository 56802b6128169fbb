"""Two hosts with two routers between them: an underlay whose path can be narrower than its ends.

    host a eth0 192.168.77.1 ==== west ---- narrow link ---- east ==== 192.168.77.2 eth0 host b

The hosts keep the addresses that they have on a common link, so that everything else works as there; they reach each
other by host routes. Owns the routers and that path; all else is the laboratory's.
"""

from bench.lab.netns import Namespace, Namespaces
from bench.lab.topology import Host, Lab

ROUTER = "192.168.77.254"
"""What both routers are called, each on its own side."""
WEST, EAST = "192.168.78.1", "192.168.78.2"
"""Of the two routers on the link between them."""


class RoutedLab(Lab):
    """A laboratory of two hosts whose path can be narrowed while it is used."""

    def __init__(self, path_mtu: int = 1500, mtu: int = 1500) -> None:
        """`path_mtu`: of the link between the routers; `mtu`: of all other links of the underlay. In bytes."""
        super().__init__(mtu=mtu)
        self._path_mtu = path_mtu
        self._routers: list[Namespace] = []

    def narrow(self, path_mtu: int) -> None:
        """Changes the MTU of the link between the routers."""
        for router in self._routers:
            router.ip(f"link set across mtu {path_mtu}")

    def _build(self, namespaces: Namespaces) -> None:
        self.hosts = [self._host(namespaces, number) for number in (1, 2)]
        west, east = self._routers = [namespaces.add("west"), namespaces.add("east")]
        a, b = self.hosts
        self._veth(west, "across", east, self._path_mtu, there="across")
        self._side(a, west)
        self._side(b, east)
        west.ip(f"address add {WEST} peer {EAST} dev across", "link set across up", f"route add {b.address} via {EAST}")
        east.ip(f"address add {EAST} peer {WEST} dev across", "link set across up", f"route add {a.address} via {WEST}")
        self._answers(a.namespace, b.address)
        for host in self.hosts:
            self._answers(host.pod, host.gateway)

    def _side(self, host: Host, router: Namespace) -> None:
        router.sysctl("ipv4/ip_forward", "1")
        router.sysctl("ipv4/icmp_ratelimit", "0")  # the kernel's own limit on ICMP errors is not what is tested here
        self._veth(host.namespace, "eth0", router, self.mtu, there="side")
        router.ip(f"address add {ROUTER} peer {host.address} dev side", "link set side up")
        host.namespace.ip(
            f"address add {host.address} peer {ROUTER} dev eth0",
            "link set eth0 up",
            f"route add 192.168.77.0/24 via {ROUTER}",
        )
