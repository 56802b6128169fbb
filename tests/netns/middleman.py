"""Somebody between a running daemon and its successor, who lets their words pass one by one.

Owns a status socket to which the successor turns, and both connections. Must not know what the words mean: a test says
after which of them what happens.
"""

import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from bench.lab.netns import Namespace
from udpbackend.dataplane import handover

WAIT_S = 20.0


class Middleman:
    """Relays one handover; `said` is called with each word once it has been passed on, and may end it by True."""

    def __init__(self, namespace: Namespace, running: Path, offered: Path, said: Callable[[str], bool]) -> None:
        """`running`: the status socket of the daemon; `offered`: the one that the successor asks on."""
        self._namespace = namespace
        self._running = running
        self._said = said
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(WAIT_S)
        self._listener.bind(str(offered))
        self._listener.listen(1)
        self._offered = offered
        self.words: list[str] = []
        self._thread = threading.Thread(target=self._relay, name="middleman")
        self._thread.start()

    def join(self) -> None:
        """Waits for the end of the conversation."""
        self._thread.join()

    def _relay(self) -> None:
        self._listener.accept()[0].close()  # before it loads all that it needs, it looks whether anybody is there
        asking, _ = self._listener.accept()
        self._listener.close()
        self._offered.unlink()  # the successor makes its own there
        with asking:
            head, _, body = asking.recv(65536).partition(b"\r\n\r\n")
            assert head.startswith(b"POST /handover")
            request = json.loads(body)
            settings = {**request["settings"], "status_socket": str(self._running)}
            # An abstract name belongs to a namespace.
            old = self._namespace.call(lambda: handover.ask(self._running, settings, replace=False))
            assert old is not None
            new = self._namespace.call(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            new.connect(b"\0" + bytes.fromhex(request["address"]))
            asking.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        with old, new:
            self._talk(old, new)

    def _talk(self, old: socket.socket, new: socket.socket) -> None:
        """The old daemon speaks first, and then each answers the other, but for `served`, which comes unasked."""
        for source, target in ((old, new), (new, old), (old, new), (new, old), (old, new), (new, old), (old, new)):
            source.settimeout(WAIT_S)
            try:
                heard = handover.receive(source)
                if heard is None:
                    return
                message, fds = heard
                handover.send(target, message, fds)
                for fd in fds.values():
                    os.close(fd)
            except OSError:
                return
            self.words.append(message.say)
            if self._said(message.say):
                return
        # Both stay connected for as long as the test lasts: the old one waits to be stopped.
        old.settimeout(None)
        handover.receive(old)
