"""A node whose kernel carries the overlay by itself (FOU, over virtual links), played by a TUN and a socket.

Owns both, and a thread that passes packets between them as such a kernel does: what the TUN hands over leaves as it is,
checksum and segmentation undone, one packet or super-packet in one datagram. Knows no daemons.
"""

import fcntl
import os
import select
import socket
import struct
import threading
from collections import Counter
from typing import Self

from bench.lab.daemon import PORT
from bench.lab.topology import NETWORK, NETWORK6, Host, Lab

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0  # linux/if_tun.h, as the next
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
NEEDS_CSUM = 1
HEADER_BYTES = 10
"""Of linux/virtio_net.h: a packet without any of it has zeros."""
NAME = "kernel0"
LONGEST = 60000
"""Of a super-packet, in bytes: it has to fit one datagram."""


class KernelNode:
    """Runs from the context's start to its end, in a host's namespace; `sent` counts what has left."""

    def __init__(self, lab: Lab, host: Host, peer: Host) -> None:
        """`peer`: who gets everything."""
        self.sent: Counter[str] = Counter()
        self._lab, self._host, self._peer = lab, host, peer
        self._thread = threading.Thread(target=self._run, name="kernel-node")
        self._ends = socket.socketpair()

    def __enter__(self) -> Self:
        self._tun = self._host.namespace.call(self._open_tun)
        self._socket = self._host.namespace.call(self._open_socket)
        self._host.namespace.ip(
            f"link set {NAME} mtu {self._host.overlay_mtu} gso_max_size {LONGEST} addrgenmode none up",
            f"route add {NETWORK} dev {NAME}",
            *([f"route add {NETWORK6} dev {NAME}"] if self._lab.ipv6 else []),
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends[0].close()
        self._thread.join()
        self._ends[1].close()
        self._socket.close()
        os.close(self._tun)

    def _open_tun(self) -> int:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", NAME.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
        return tun

    def _open_socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        made.bind((self._host.address, PORT))
        return made

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._tun, self._socket, self._ends[1]], [], [])
            if self._ends[1] in ready:
                return
            if self._tun in ready:
                self._send(os.read(self._tun, HEADER_BYTES + 65535))
            if self._socket in ready:
                os.write(self._tun, bytes(HEADER_BYTES) + self._socket.recv(65535))

    def _send(self, frame: bytes) -> None:
        flags, kind = frame[:2]
        self.sent["partial"] += flags & NEEDS_CSUM
        self.sent["super"] += kind != 0
        self._socket.sendto(frame[HEADER_BYTES:], (self._peer.address, PORT))
