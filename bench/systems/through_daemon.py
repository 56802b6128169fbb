"""vxlan and host-gw set up by our daemon, one per host; the kernel carries the packets in either case.

Owns nothing but the registry's `Backend`: what is to agree with the systems of `kernel` is taken from there.
"""

from typing import ClassVar

from bench.lab.daemon import Overlay
from bench.lab.topology import Host
from bench.systems.kernel import HostGateway, Vxlan
from bench.systems.udp import Udp


class ThroughDaemon(Udp):
    """The base of the two below."""

    backend: ClassVar[str]

    def make_overlay(self) -> Overlay:
        """The daemons, not yet started."""
        return Overlay(self.lab, backend={"Type": self.backend})

    def drops(self, host: Host) -> int:
        """None: the daemon sees no packet. What the kernel drops stands with its links."""
        del host
        return 0


class VxlanThroughDaemon(ThroughDaemon):
    """Beside `Vxlan`."""

    name = "vxlan-through-daemon"
    what = "kernel VXLAN, set up by udp-backend instead of by hand"
    device = Vxlan.device
    overhead_bytes = Vxlan.overhead_bytes
    against = Vxlan.name
    backend = "vxlan"


class HostGatewayThroughDaemon(ThroughDaemon):
    """Beside `HostGateway`."""

    name = "host-gw-through-daemon"
    what = "kernel routes, set up by udp-backend instead of by hand"
    device = HostGateway.device
    overhead_bytes = HostGateway.overhead_bytes
    against = HostGateway.name
    backend = "host-gw"


THROUGH_DAEMON: dict[str, type[ThroughDaemon]] = {
    system.against: system for system in (VxlanThroughDaemon, HostGatewayThroughDaemon)
}
"""By the name of the system that is set up by hand."""
