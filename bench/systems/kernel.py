"""Systems that the kernel carries alone: nothing at all, plain routes, and VXLAN as flannel sets it up.

Must not start a process. The VXLAN device is made through netlink: an explicit id, the underlay as its link, no
learning; every peer gets a permanent neighbour, a permanent forwarding entry and an on-link route.
"""

import socket
from functools import partial
from typing import Any, ClassVar

from pyroute2 import IPRoute
from pyroute2.netlink.rtnl.ndmsg import NTF_SELF, states

from bench.lab.topology import Host
from bench.systems.base import System


class Bare(System):
    """No overlay: the hosts' own addresses. Pods have no such path; with routes for them it is `host-gw`."""

    name = "bare"
    what = "no overlay: the underlay's own addresses"
    device = "eth0"
    overhead_bytes = 0
    paths: ClassVar[tuple[str, ...]] = ("host-host",)

    def prepare(self) -> None:
        """Nothing to do."""

    def address(self, host: Host) -> str:
        """On the underlay."""
        return host.address


class HostGateway(System):
    """The other host is the gateway to its subnet: no encapsulation, but the hosts share a link."""

    name = "host-gw"
    what = "kernel routes from host to host, no encapsulation"
    device = "eth0"
    overhead_bytes = 0

    def prepare(self) -> None:
        """A route on each host."""
        a, b = self.lab.hosts
        self.set_pod_mtu()
        for here, there in ((a, b), (b, a)):
            here.namespace.ip(f"route add {there.subnet} via {there.address} dev eth0")


class Vxlan(System):
    """Kernel VXLAN with static entries, what everything else is measured against."""

    name = "vxlan"
    what = "kernel VXLAN as flannel sets it up: static entries, no learning"
    device = "flannel.1"
    overhead_bytes = 50
    vni = 1
    port = 8472

    def prepare(self) -> None:
        """Both devices first: an entry needs the other one's MAC address."""
        a, b = self.lab.hosts
        self.set_pod_mtu()
        macs = {host.name: host.namespace.call(partial(self._make, host)) for host in (a, b)}
        for here, there in ((a, b), (b, a)):
            here.namespace.call(partial(self._enter, here, there, macs[there.name]))

    @staticmethod
    def vtep(host: Host) -> str:
        """The address of its device: the base of its subnet."""
        return host.subnet.removesuffix("/24")

    def _make(self, host: Host) -> str:
        """Makes the device; its MAC address."""
        with IPRoute() as netlink:
            underlay = netlink.link_lookup(ifname="eth0")[0]
            netlink.link(
                "add",
                ifname=self.device,
                kind="vxlan",
                vxlan_id=self.vni,
                vxlan_link=underlay,
                vxlan_local=host.address,
                vxlan_port=self.port,
                vxlan_learning=0,
                mtu=self.lab.mtu - self.overhead_bytes,
            )
            index = netlink.link_lookup(ifname=self.device)[0]
            netlink.addr("add", index=index, address=self.vtep(host), prefixlen=32)
            netlink.link("set", index=index, state="up")
            link: Any = netlink.link("get", index=index)[0]
            return str(link.get_attr("IFLA_ADDRESS"))

    def _enter(self, here: Host, there: Host, mac: str) -> None:
        """What one host has to know of the other."""
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname=self.device)[0]
            permanent = states["permanent"]
            netlink.neigh(
                "replace", family=socket.AF_INET, dst=self.vtep(there), lladdr=mac, ifindex=index, state=permanent
            )
            netlink.fdb("replace", ifindex=index, lladdr=mac, dst=there.address, state=permanent, flags=NTF_SELF)
        here.namespace.ip(f"route replace {there.subnet} via {self.vtep(there)} dev {self.device} onlink")
