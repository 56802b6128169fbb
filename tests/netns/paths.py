"""A pair of hosts whose path is looked at: what the daemon and the kernels know of its MTU, and sockets to try it with.

Owns what the tests of path MTU do again and again. Knows no particular path.
"""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import packets
from counted import Tally

from bench.lab.daemon import Overlay
from bench.lab.netns import Namespace
from bench.lab.topology import Host, Lab
from bench.lab.wait import until

LONGEST = 1472
"""Of an inner packet, where the underlay takes 1500."""
PROTOCOL_PORT = 4000
DEADLINE_S = 10


@dataclass
class Scene:
    lab: Lab
    a: Host
    b: Host
    tally: Tally
    """Host a's."""
    overlay: Overlay

    def path_mtu(self) -> int | None:
        """What a's daemon believes of the path to b."""
        found: int | None = self.tally.peer(self.b.address)["path_mtu"]
        return found


@contextmanager
def running(lab: Lab, *arguments: str) -> Iterator[Scene]:
    """Both daemons, judged at the end."""
    with lab, Overlay(lab, *arguments) as overlay:
        overlay.start_all()
        a, b = lab.hosts
        yield Scene(lab, a, b, Tally(overlay, a), overlay)
        overlay.stop_all()


def known_to(pod: Namespace, address: str) -> int | None:
    """The path MTU that a kernel has learned."""
    found = re.search(r"\bmtu (\d+)", pod.run("ip", "route", "get", address))
    return int(found[1]) if found else None


@contextmanager
def udp_pair(scene: Scene) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Plain sockets in both pods; the sender's packets have no DF."""
    with (
        packets.udp_socket(scene.a.pod, scene.a.pod_address) as sender,
        packets.udp_socket(scene.b.pod, scene.b.pod_address, PROTOCOL_PORT) as receiver,
    ):
        sender.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT
        sender.connect((scene.b.pod_address, PROTOCOL_PORT))
        receiver.settimeout(DEADLINE_S)
        yield sender, receiver


def learn(scene: Scene, sender: socket.socket, path_mtu: int | None, deadline_s: float = DEADLINE_S) -> None:
    """Sends what does not fit until the daemon knows why, or knows better."""

    def learned() -> bool:
        sender.send(bytes(LONGEST - 28))
        return scene.path_mtu() == path_mtu

    until(learned, deadline_s, f"the daemon has not learned the path MTU {path_mtu}")


def drain(receiver: socket.socket) -> None:
    """All that a sender has sent so far is in or lost: a last short one has come through."""
    while receiver.recv(65535) != b"last":
        pass
