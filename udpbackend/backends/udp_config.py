"""The options of the udp backend, as they stand in a network configuration's `Backend` object."""

from __future__ import annotations

from typing import Self

import msgspec

from udpbackend.errors import ConfigError
from udpbackend.gojson import Fields
from udpbackend.model import BackendConfig

DEFAULT_PORT = 8285
MIN_MTU_BYTES = 576
"""What every IPv4 host must be able to take."""
MAX_MTU_BYTES = 65535 - 20 - 8
"""The payload of the largest datagram: a whole IPv4 packet less its header and UDP's."""


class UdpOptions(msgspec.Struct, frozen=True):
    """`Port` and `MTU` of the udp backend."""

    port: int = DEFAULT_PORT
    """UDP port of every node of the network; the registry does not carry it."""
    mtu: int | None = None
    """flannel0's MTU in bytes. None: the outer interface's less 28."""

    @classmethod
    def parse(cls, backend: BackendConfig) -> Self:
        """Reads the options; unknown ones are ignored. Raises ConfigError."""
        try:
            fields = Fields(backend.options, "Backend")
            port = fields.whole("Port")
            mtu = fields.whole("MTU")
        except ConfigError as error:
            raise ConfigError(f"error decoding UDP backend config: {error}") from None
        if port is not None and not 1 <= port <= 65535:
            raise ConfigError(f"Backend.Port: expected a port number from 1 to 65535, got {port}")
        if mtu is not None and not MIN_MTU_BYTES <= mtu <= MAX_MTU_BYTES:
            raise ConfigError(f"Backend.MTU: expected {MIN_MTU_BYTES} to {MAX_MTU_BYTES} bytes, got {mtu}")
        return cls(DEFAULT_PORT if port is None else port, mtu)
