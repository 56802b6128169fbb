"""TCP connections between two pods that are asked to live through what a test does to the way between them.

Owns their two ends. Must not know what happens to the way.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from bench.lab.topology import Host

PORT = 7000
PATIENCE_S = 10.0
"""For TCP, which waits longer after each attempt."""


@contextmanager
def connection(client: Host, server: Host, address: str = "") -> Iterator[tuple[socket.socket, socket.socket]]:
    """As its two ends. `address`: of the server's pod, its IPv4 address unless it is named."""
    where = (address or server.pod_address, PORT)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def listen() -> socket.socket:
        return socket.create_server(where, family=family)

    def connect() -> socket.socket:
        return socket.create_connection(where, timeout=PATIENCE_S)

    with server.pod.call(listen) as listener:
        near = client.pod.call(connect)
        far, _ = listener.accept()
    with near, far:
        far.settimeout(PATIENCE_S)
        yield near, far


def echoes(near: socket.socket, far: socket.socket, word: bytes) -> bool:
    """Whether a word comes to the far end, and back."""
    near.sendall(word)
    got = far.recv(len(word), socket.MSG_WAITALL)
    far.sendall(got)
    return near.recv(len(word), socket.MSG_WAITALL) == word
