"""The options of the vxlan backend, as they stand in a network configuration's `Backend` object."""

from __future__ import annotations

from typing import Self

import msgspec

from udpbackend.errors import ConfigError
from udpbackend.gojson import Fields
from udpbackend.model import BackendConfig, NetworkConfig

DEFAULT_VNI = 1
LAST_VNI = (1 << 24) - 1
DEFAULT_PORT = 8472
"""The Linux kernel's, older than IANA's 4789; flannel leaves the choice to the kernel, so its nodes use this one."""
OVERHEAD_BYTES = {4: 50, 6: 70}
"""By IP version of the outer packet: its header, then UDP's (8), VXLAN's (8) and the inner Ethernet header (14)."""
MIN_MTU_BYTES = 576 + OVERHEAD_BYTES[4]
"""What every IPv4 host must be able to take, inside."""
LONGEST_NAME = 15
"""IFNAMSIZ without its final zero byte."""


class VxlanOptions(msgspec.Struct, frozen=True):
    """`VNI`, `Port`, `MTU`, `GBP`, `Learning` and `DirectRouting` of the vxlan backend."""

    vni: int = DEFAULT_VNI
    port: int = DEFAULT_PORT
    """UDP port of every node of the network."""
    mtu: int | None = None
    """That of the outer packets, in bytes. None: the outer interface's."""
    gbp: bool = False
    """Whether the group policy extension is on."""
    learning: bool = False
    """Whether the device learns where a MAC is from the packets it receives."""
    direct_routing: bool = False
    """Whether a peer on a link of this host is sent packets as they are."""

    @classmethod
    def of(cls, config: NetworkConfig) -> Self:
        """The options of a whole configuration. Raises ConfigError."""
        return cls.parse(config.backend, ipv6=config.ipv6 is not None)

    @classmethod
    def parse(cls, backend: BackendConfig, *, ipv6: bool = False) -> Self:
        """Reads the options; unknown ones are ignored. `ipv6`: there will be a second device. Raises ConfigError."""
        try:
            fields = Fields(backend.options, "Backend")
            vni, port, mtu = (fields.whole(key) for key in ("VNI", "Port", "MTU"))
            switches = [fields.boolean(key, default=False) for key in ("GBP", "Learning", "DirectRouting")]
        except ConfigError as error:
            raise ConfigError(f"error decoding VXLAN backend config: {error}") from None
        found = cls(DEFAULT_VNI if vni is None else vni, port or DEFAULT_PORT, mtu, *switches)
        if not 0 <= found.vni <= LAST_VNI:
            raise ConfigError(f"Backend.VNI: expected a number from 0 to {LAST_VNI}, got {found.vni}")
        if not 1 <= found.port <= 65535:
            raise ConfigError(f"Backend.Port: expected a port number from 1 to 65535, or 0 for the usual, got {port}")
        if mtu is not None and not MIN_MTU_BYTES <= mtu <= 65535:
            raise ConfigError(f"Backend.MTU: expected {MIN_MTU_BYTES} to 65535 bytes, got {mtu}")
        name = found.device(6 if ipv6 else 4)
        if len(name) > LONGEST_NAME:
            raise ConfigError(
                f"Backend.VNI: the device would be called {name}, and the kernel takes no name of more than "
                f"{LONGEST_NAME} characters: expected a smaller number than {found.vni}"
            )
        return found

    def device(self, version: int) -> str:
        """The name of the device that carries packets of an IP version."""
        return f"flannel.{self.vni}" if version == 4 else f"flannel-v6.{self.vni}"
