"""Which dataplane the udp backend has on this host: ours in userspace, or the kernel's.

Owns the choice and its reasons. Must not know how either works; loads only the one that is chosen.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from udpbackend.backends.udp_config import BINDS_ADDRESS, OVERHEAD_BYTES, UdpOptions
from udpbackend.errors import ConfigError, HostError
from udpbackend.host.fou_probe import Verdict, probe
from udpbackend.model import NetworkConfig

if TYPE_CHECKING:
    from udpbackend.backends.backend import Backend, Context

__all__ = ["BINDS_ADDRESS", "OVERHEAD_BYTES", "backend", "check"]

log = logging.getLogger(__name__)

NO_SUBNET_CHECK = (
    "the kernel's dataplane cannot hold a packet's inner source to the peer that sends it (--source-check=subnet): "
    "expected --source-check=peer or off"
)


def check(config: NetworkConfig) -> None:
    """Raises ConfigError for a wrong option."""
    UdpOptions.parse(config.backend)


async def backend(context: Context) -> Backend:
    """The udp backend with the dataplane that is asked for. Raises ConfigError, and HostError where it cannot be."""
    asked = context.settings.dataplane or UdpOptions.parse(context.config.backend).dataplane or "userspace"
    if asked == "kernel":
        if context.settings.source_check == "subnet":
            raise ConfigError(NO_SUBNET_CHECK)
        verdict = await _probe(context)
        if verdict.missing:
            raise HostError(
                f"the kernel cannot be the dataplane: {verdict.missing}; --dataplane=userspace runs anywhere"
            )
        if verdict.unproven:
            log.warning("whether the kernel can be the dataplane is not proven: %s", verdict.unproven)
        return _kernel(context)
    if asked == "auto" and await _can(context):
        return _kernel(context)
    from udpbackend.backends.udp import UdpBackend  # noqa: PLC0415 it loads the C extension

    return UdpBackend(context)


async def _can(context: Context) -> bool:
    """Whether the kernel is proven to do it all; a line in the log says what was found."""
    if context.settings.source_check == "subnet":
        why = NO_SUBNET_CHECK
    else:
        verdict = await _probe(context)
        why = verdict.missing or verdict.unproven
    if why:
        log.info("dataplane auto: userspace, since %s", why)
    else:
        log.info("dataplane auto: the kernel, a packet has passed through a tunnel of it")
    return not why


async def _probe(context: Context) -> Verdict:
    return await asyncio.to_thread(probe, ipv6=context.config.ipv6 is not None)


def _kernel(context: Context) -> Backend:
    from udpbackend.backends.udp_kernel import KernelUdpBackend  # noqa: PLC0415 not where it is not used

    return KernelUdpBackend(context)
