"""The systems under test, one small class each, and the list of all of them."""

from bench.systems.bare_loop import BareLoop
from bench.systems.base import PATHS, Carried, System
from bench.systems.flannel import FlannelUdp
from bench.systems.kernel import Bare, HostGateway, Vxlan
from bench.systems.openvpn import OpenVpn
from bench.systems.scaled import SCALED
from bench.systems.through_daemon import THROUGH_DAEMON
from bench.systems.tinc import Tinc
from bench.systems.udp import Udp, UdpBefore, UdpKernel, UdpMerging, UdpOrdinary, UdpUnfiltered
from bench.systems.vtun import Vtun
from bench.systems.wireguard import WireguardGo

ALL: tuple[type[System], ...] = (
    Vxlan,
    Udp,
    Bare,
    HostGateway,
    FlannelUdp,
    WireguardGo,
    Tinc,
    OpenVpn,
    Vtun,
    BareLoop,
    UdpOrdinary,
    UdpMerging,
    UdpUnfiltered,
    UdpKernel,
    UdpBefore,
    *THROUGH_DAEMON.values(),
    *SCALED,
)
"""The reference comes first, and is so measured first in each round."""

BY_NAME: dict[str, type[System]] = {system.name: system for system in ALL}
REFERENCE = Vxlan.name
ORDINARY = UdpOrdinary.name
_TAKEN_APART = (
    BareLoop,
    UdpOrdinary,
    UdpMerging,
    UdpUnfiltered,
    UdpKernel,
    UdpBefore,
    *THROUGH_DAEMON.values(),
    *SCALED,
)
OVERLAYS = tuple(system.name for system in ALL if system not in _TAKEN_APART)
"""What a user would choose from; the others are ours, taken apart."""

__all__ = [
    "ALL",
    "BY_NAME",
    "ORDINARY",
    "OVERLAYS",
    "PATHS",
    "REFERENCE",
    "SCALED",
    "THROUGH_DAEMON",
    "Carried",
    "System",
]
