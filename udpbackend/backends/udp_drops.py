"""Where the kernel drops packets beside the udp backend, in words for people."""

from __future__ import annotations

from udpbackend.backends.backend import KernelDrop

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
        "packets the kernel dropped at flannel0 after we handed them over",
        "the host's input queue is full or its memory short: raise net.core.netdev_max_backlog, look at `free`",
    ),
    KernelDrop(
        "socket_rx_dropped",
        "rx",
        "datagrams the kernel dropped at the UDP socket before we read them: its buffer was full, or a checksum wrong",
        "raise net.core.rmem_max and restart; if it grows all the time, the daemon needs more CPU time",
    ),
)
"""In the order in which they are shown."""
