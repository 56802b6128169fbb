"""Numbered datagrams from one namespace to another, all the while a test does something to the way between them.

Owns two sockets and a thread that sends. Must not know what happens to the way: it tells what came through and when.
"""

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bench.lab.netns import Namespace
from bench.lab.wait import LabError

EVERY_S = 0.005
PORT = 7007
LAST_S = 10.0
"""What the last datagrams may take to arrive on a busy machine."""
NUMBER = struct.Struct("!I")
SO_RCVBUFFORCE = 33
"""asm-generic/socket.h; whatever the host's rmem_max is, a minute's datagrams wait here until somebody looks."""


class Probe:
    """Sends from the start to `stop`; `sent` counts what left, `seen` holds the numbers that came."""

    def __init__(self, sender: socket.socket, receiver: socket.socket, target: tuple[str, int]) -> None:
        self.sent = 0
        self.seen: set[int] = set()
        self._sender, self._receiver, self._target = sender, receiver, target
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, name="probe")
        self._thread.start()

    def flows(self, deadline_s: float) -> float:
        """Waits until a datagram that is sent from now on arrives; the seconds it took."""
        began, first = time.monotonic(), self.sent
        while not self._take(began + deadline_s, first):
            if time.monotonic() >= began + deadline_s:
                raise LabError(f"nothing has come through for {deadline_s:g} s")
        return time.monotonic() - began

    def stop(self) -> None:
        """Sends no more."""
        self._over.set()
        self._thread.join()

    def lost(self) -> int:
        """Stops; how many of all have not arrived."""
        self.stop()
        end = time.monotonic() + LAST_S
        while len(self.seen) < self.sent and time.monotonic() < end:
            self._take(end, 0)
        return self.sent - len(self.seen)

    def _take(self, end: float, first: int) -> bool:
        """Takes one datagram if there is one before the end; whether its number is `first` or later."""
        if not select.select([self._receiver], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        (number,) = NUMBER.unpack(self._receiver.recv(NUMBER.size))
        self.seen.add(number)
        return bool(number >= first)

    def _send(self) -> None:
        while not self._over.wait(EVERY_S):
            with suppress(OSError):  # a host without a way refuses at once, and that is a loss like another
                self._sender.sendto(NUMBER.pack(self.sent), self._target)
            self.sent += 1


@contextmanager
def probing(source: Namespace, destination: Namespace, address: str) -> Iterator[Probe]:
    """A probe that is running while the context lasts, and whose first datagram has arrived."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        made.bind((address, PORT))
        return made

    def speak() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    with destination.call(listen) as receiver, source.call(speak) as sender:
        probe = Probe(sender, receiver, (address, PORT))
        try:
            probe.flows(5)
            yield probe
        finally:
            probe.stop()
