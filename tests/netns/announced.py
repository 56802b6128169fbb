"""What the kernel announces of links, addresses and routes, heard where it is announced.

A message is in the socket before whoever caused it goes on: a look tells exactly what has happened, and needs no wait.
Owns the socket. Must not know what should be announced.
"""

import socket
from contextlib import suppress

from inside import SOON_S, ip, until

from udpbackend.host.netlink import GROUPS


def listen(groups=GROUPS):
    """Gets a message for each change in the namespace that it is made in."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    made.bind((0, groups))
    return made


def told(changes):
    """How many messages have come since the last look."""
    count = 0
    with suppress(BlockingIOError):
        while changes.recv(65536):
            count += 1
    return count


async def carrier(state):
    """Waits until flannel0's is told: of a queue that was closed or opened the kernel tells up to a second later."""
    await until(lambda: ip("-j", "link", "show", "flannel0")[0]["operstate"] == state, SOON_S)
