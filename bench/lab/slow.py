"""A way that is slow to one host, and a pod that sends more than it takes.

Owns the qdisc that makes it so and the flood. Must not know who is looked at meanwhile.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bench.lab.topology import Host

UDP_SEGMENT = 103
"""udp(7): one call of so many bytes leaves as datagrams of the size that this option gives."""
DATAGRAM_BYTES = 1400
CALL_BYTES = 40 * DATAGRAM_BYTES
PAUSE_S = CALL_BYTES * 8 / 20e6
"""Between calls: 20 Mbit/s."""
PORT = 4000


def slow_down(host: Host, address: str) -> None:
    """From now on the host's link takes 1 Mbit/s to that address, with a queue of 1,000 packets, and 10 Gbit/s else."""

    def tc(line: str) -> None:
        host.namespace.run("tc", *line.split())

    tc("qdisc add dev eth0 root handle 1: htb default 10")
    tc("class add dev eth0 parent 1: classid 1:10 htb rate 10gbit quantum 60000")
    tc("class add dev eth0 parent 1: classid 1:20 htb rate 1mbit quantum 1500")
    tc("qdisc add dev eth0 parent 1:20 pfifo limit 1000")
    tc(f"filter add dev eth0 parent 1: protocol ip u32 match ip dst {address}/32 flowid 1:20")


@contextmanager
def flooded(host: Host, address: str, *, segmented: bool, pause_s: float) -> Iterator[None]:
    """UDP from the host's pod to an address meanwhile: by UDP_SEGMENT, or packet by packet."""
    over = threading.Event()

    def flood(sender: socket.socket) -> None:
        size = CALL_BYTES if segmented else DATAGRAM_BYTES
        while not over.wait(pause_s):
            sender.sendto(bytes(size), (address, PORT))

    with host.pod.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        if segmented:
            sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, DATAGRAM_BYTES)
        thread = threading.Thread(target=flood, args=(sender,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
