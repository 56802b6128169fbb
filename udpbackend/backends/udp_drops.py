"""Where the kernel drops packets beside the udp backend, in words for people, and how many.

Owns what is subtracted from the kernel's counts. Must not know queues, routes or peers.
"""

from __future__ import annotations

from contextlib import suppress

from udpbackend.backends.backend import KernelDrop
from udpbackend.backends.udp_sockets import Sockets
from udpbackend.errors import HostError
from udpbackend.host.flannel0 import OverlayLink

KERNEL_DROPS = (
    KernelDrop(
        "flannel0_tx_dropped",
        "tx",
        "packets the kernel dropped at flannel0 before we read them: its queue was full",
        "a burst: lengthen the queue, `ip link set flannel0 txqueuelen 5000`; if it grows all the time, the daemon "
        "needs more CPU time",
    ),
    KernelDrop(
        "flannel0_rx_dropped",
        "rx",
        "packets the kernel dropped at flannel0 when or after we handed them over, those of rx_drop_tun_* among them",
        "where it is more than rx_drop_tun_*, the host's input queue is full or its memory short: raise "
        "net.core.netdev_max_backlog, look at `free`",
    ),
    KernelDrop(
        "socket_rx_dropped",
        "rx",
        "datagrams the kernel dropped at the UDP socket before we read them: its buffer was full, or a checksum wrong",
        "raise net.core.rmem_max and restart; if it grows all the time, the daemon needs more CPU time",
    ),
)
"""In the order in which they are shown."""


class Drops:
    """What the kernel drops at flannel0 and at the sockets for as long as somebody reads them."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        """What flannel0 has counted while nobody was reading: it outlives the daemons."""

    async def begin(self, link: OverlayLink) -> None:
        """From now on they count."""
        with suppress(HostError):
            self._before = await link.drops()

    async def now(self, link: OverlayLink, sockets: Sockets) -> dict[KernelDrop, int]:
        """How many there were since."""
        drops = {}
        with suppress(HostError):
            drops = await link.drops()
        for name, before in self._before.items():
            if (now := drops.get(name, 0)) >= before:  # or the device was made anew, and has counted from nothing
                drops[name] = now - before
        drops["socket_rx_dropped"] = sockets.drops()
        return {it: drops[it.name] for it in KERNEL_DROPS if it.name in drops}
