"""The MTU of the udp backend's overlay: what it is, and what it has to be. The same for both dataplanes.

Owns its refusals. Changes nothing.
"""

from __future__ import annotations

import logging

from udpbackend.backends.udp_config import OVERHEAD_BYTES, UdpOptions
from udpbackend.errors import ConfigError
from udpbackend.host.ipv6 import require_ipv6
from udpbackend.model import Endpoint

log = logging.getLogger(__name__)

MIN_MTU_BYTES = 68
"""RFC 791: every IPv4 link takes as much."""
IPV6_MIN_MTU_BYTES = 1280
"""RFC 8200: every IPv6 link takes as much, and Linux takes IPv6 off a device that does not."""


def overlay_mtu(options: UdpOptions, endpoint: Endpoint) -> int:
    """flannel0's, in bytes."""
    return options.mtu or endpoint.mtu - OVERHEAD_BYTES


def check_mtu(mtu: int, endpoint: Endpoint) -> None:
    """Raises ConfigError for an interface that is too narrow; warns of an MTU that it cannot carry."""
    room = endpoint.mtu - OVERHEAD_BYTES
    if mtu < MIN_MTU_BYTES:
        raise ConfigError(
            f"interface {endpoint.interface} has an MTU of {endpoint.mtu} bytes, "
            f"expected at least {MIN_MTU_BYTES + OVERHEAD_BYTES}"
        )
    if mtu > room:
        log.warning(
            "Backend.MTU %d does not fit %s, whose MTU of %d leaves %d: longer packets will be cut or refused",
            mtu, endpoint.interface, endpoint.mtu, room,
        )  # fmt: skip


def check_ipv6(device: str, mtu: int) -> None:
    """Raises ConfigError or HostError unless a device of that MTU can carry IPv6 on this host."""
    if mtu < IPV6_MIN_MTU_BYTES:
        raise ConfigError(
            f"IPv6 needs an MTU of {IPV6_MIN_MTU_BYTES} bytes on {device}, which would have {mtu}: "
            f"expected a larger Backend.MTU or an interface of {IPV6_MIN_MTU_BYTES + OVERHEAD_BYTES} bytes, or no "
            "IPv6Subnet for this node"
        )
    require_ipv6(device)
