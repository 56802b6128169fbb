"""The options of the udp backend, as they stand in a network configuration's `Backend` object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, cast

import msgspec

from udpbackend.errors import ConfigError
from udpbackend.gojson import Fields, shown
from udpbackend.model import BackendConfig
from udpbackend.texts import DATAPLANES, Dataplane

DEFAULT_PORT = 8285
OVERHEAD_BYTES = 28
"""Outer IPv4 and UDP headers."""
BINDS_ADDRESS = True
"""What is received is what comes to the interface's own address, whoever receives it."""
MIN_MTU_BYTES = 576
"""What every IPv4 host must be able to take."""
MAX_MTU_BYTES = 65535 - 20 - 8
"""The payload of the largest datagram: a whole IPv4 packet less its header and UDP's."""


class UdpOptions(msgspec.Struct, frozen=True):
    """`Port`, `MTU` and `Dataplane` of the udp backend; flannel knows the first alone."""

    port: int = DEFAULT_PORT
    """UDP port of every node of the network; the registry does not carry it."""
    mtu: int | None = None
    """flannel0's MTU in bytes. None: the outer interface's less 28."""
    dataplane: Dataplane | None = None
    """None: userspace, unless a flag says otherwise."""

    @classmethod
    def parse(cls, backend: BackendConfig) -> Self:
        """Reads the options; unknown ones are ignored. Raises ConfigError."""
        try:
            fields = Fields(backend.options, "Backend")
            port = fields.whole("Port")
            mtu = fields.whole("MTU")
            dataplane = fields.string("Dataplane")
        except ConfigError as error:
            raise ConfigError(f"error decoding UDP backend config: {error}") from None
        if port is not None and not 1 <= port <= 65535:
            raise ConfigError(f"Backend.Port: expected a port number from 1 to 65535, got {port}")
        if mtu is not None and not MIN_MTU_BYTES <= mtu <= MAX_MTU_BYTES:
            raise ConfigError(f"Backend.MTU: expected {MIN_MTU_BYTES} to {MAX_MTU_BYTES} bytes, got {mtu}")
        if dataplane and dataplane not in DATAPLANES:
            raise ConfigError(f"Backend.Dataplane: expected {_either(DATAPLANES)}, got {shown(dataplane)}")
        return cls(DEFAULT_PORT if port is None else port, mtu, cast("Dataplane", dataplane) if dataplane else None)


def _either(words: Sequence[str]) -> str:
    quoted = [f'"{word}"' for word in words]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}"
