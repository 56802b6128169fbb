"""TCP ports for servers of tests that share the loopback of this machine with everybody else.

None of those that the kernel gives to clients: a server that stops and comes back would find a connection on its port.
"""

import random
import socket
from contextlib import ExitStack
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST = 10000


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Ports nobody has just now."""
    below = int(RANGE.read_text().split()[0])
    found: list[int] = []
    with ExitStack() as stack:
        for port in random.sample(range(FIRST, below), below - FIRST):
            if len(found) == count:
                break
            made = stack.enter_context(socket.socket())
            try:
                made.bind((address, port))
            except OSError:  # somebody's
                continue
            found.append(port)
    return found
