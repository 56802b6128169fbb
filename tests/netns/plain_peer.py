"""Plays flanneld: a TUN without any offload, a plain UDP socket, one packet a system call. Run inside a host.

    python plain_peer.py ADDRESS PORT MTU OVERLAY-ADDRESS SUBNET=PEER...

Owns the device, its route and the two loops. Like flanneld it takes what comes to the port from anywhere, and looks at
nothing but the destination of what leaves. What does not fit its MTU it truncates, as flanneld's buffer does.
"""

import fcntl
import ipaddress
import os
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
DEVICE = "flannel0"


def main(address: str, port: int, mtu: int, own: str, peers: dict[str, str]) -> None:
    """Runs until it is stopped. `own`: what the device carries, the base of the host's subnet."""
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", DEVICE, "mtu", str(mtu), "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{own}/32", "dev", DEVICE], check=True)
    for subnet in peers:
        subprocess.run(["ip", "route", "add", subnet, "dev", DEVICE], check=True)
    ways = {ipaddress.IPv4Network(subnet): (peer, port) for subnet, peer in peers.items()}
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, port))
    threading.Thread(target=_receive, args=(udp, tun, mtu), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while packet := os.read(tun, mtu):
        destination = ipaddress.IPv4Address(packet[16:20])
        for subnet, way in ways.items():
            if packet[0] >> 4 == 4 and destination in subnet:
                udp.sendto(packet, way)


def _receive(udp: socket.socket, tun: int, mtu: int) -> None:
    while True:
        packet = udp.recv(mtu)
        with suppress(OSError):
            os.write(tun, packet)


if __name__ == "__main__":
    here, at, size, base, *others = sys.argv[1:]
    main(here, int(at), int(size), base, dict(it.split("=", 1) for it in others))
