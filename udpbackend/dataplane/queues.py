"""The queues that another process leaves, made from its fds and a state (dataplane.estate) alone.

Owns the dataplane, the fds and a thread for each queue, until a backend takes them over or they are let go. Loads the C
extension and its wrapper only once there is something to turn. Must not know who leaves them, nor registries, backends
or the event loop.
"""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from udpbackend.dataplane import estate
from udpbackend.dataplane.estate import Parts, State
from udpbackend.errors import HostError
from udpbackend.settings import Settings

if TYPE_CHECKING:  # loaded only once there is something to turn
    from udpbackend.dataplane.native import Dataplane
    from udpbackend.dataplane.worker import Worker


class Queues:
    """Open queues that turn, each in a thread: what was inherited or is about to be."""

    def __init__(self, state: State, settings: Settings, origin: str) -> None:
        """Makes the dataplane and publishes the table; no fd is needed for it yet."""
        from udpbackend.dataplane import native  # noqa: PLC0415 a start without an inheritance does not come here

        self._settings = settings
        self.parts: Parts = state.header.parts
        self.header = state.header
        self.origin = origin
        self.fds: dict[str, int] = {}
        """All by name, the memfds of the state too; owned."""
        self.workers: list[Worker] = []
        self._opened = 0
        self.routes = len(state.routes) // native.ROUTE.size
        self.dataplane: Dataplane = native.Dataplane(
            tun_address=IPv4Address(self.parts.tun_address),
            tun_address6=IPv6Address(self.parts.tun_address6) if self.parts.tun_address6 else None,
            options=native.Options.of(settings),
        )
        self.dataplane.publish(state.routes)

    def learn(self, state: State) -> None:
        """Takes over what a state tells of the ways to the peers."""
        from udpbackend.dataplane import native  # noqa: PLC0415 as above

        if state.row_bytes == native.ROW_BYTES:
            self.dataplane.restore_paths(state.peers)

    def count(self, state: State) -> None:
        """Adds the counters of a state, if this version knows each of them."""
        from udpbackend.dataplane import native  # noqa: PLC0415 as above

        names = [info.name for info in native.counter_infos()]
        if not state.header.counters.keys() - set(names):
            self.dataplane.add_counters([state.header.counters.get(name, 0) for name in names])
        if state.row_bytes == native.ROW_BYTES:
            self.dataplane.restore_peers(state.peers)

    def open(self, fds: dict[str, int]) -> None:
        """Opens the queues; `fds` are transferred. Raises UdpBackendError where they are not what is needed.

        Whoever turns these fds meanwhile does so undisturbed: they are set up as all daemons of one format do.
        """
        self.fds |= fds
        if missing := [name for name in self.parts.fds if name not in self.fds]:
            raise HostError(f"incomplete: there is no {missing[0]}")
        senders = [self.fds[name] for name in self.parts.fds if name.startswith("send-")]
        for queue in range(sum(name.startswith("tun-") for name in self.parts.fds)):
            self.dataplane.open_queue(queue, self.fds[f"tun-{queue}"], self._bound(f"udp-{queue}"))
            self._opened = queue + 1
            for sender in senders:
                self.dataplane.add_socket(queue, sender)

    def hold(self) -> dict[str, int]:
        """Starts a thread for each open queue; the eventfds that they wait for, and for nothing else, borrowed."""
        from udpbackend.dataplane.worker import Worker  # noqa: PLC0415 as above

        cpus, nice = self._settings.worker_cpus, self._settings.nice
        for queue in range(self._opened):
            cpu = cpus[queue % len(cpus)] if cpus else None
            self.workers.append(Worker(self.dataplane, queue, nice=nice, cpu=cpu))
            self.workers[-1].start(hold=True)
        for worker in self.workers:
            worker.await_ready()
        return {f"go-{queue}": worker.go_fd for queue, worker in enumerate(self.workers)}

    def go(self) -> None:
        """Turns the queues, as far as nobody else has said so."""
        for worker in self.workers:
            worker.go()

    def follow(self) -> None:
        """Publishes the routes again if whoever left the queues has done so since."""
        state = estate.newest(self.fds)
        if state is not None and state.header.generation > self.header.generation:
            self.dataplane.publish(state.routes)
            self.header = state.header

    def stop(self) -> None:
        """Stops turning and closes everything."""
        for worker in self.workers:
            worker.halt()
        self.workers = []
        for queue in range(self._opened):
            self.dataplane.close_queue(queue)
        self._opened = 0
        self.dataplane.close()
        while self.fds:
            os.close(self.fds.popitem()[1])

    def _bound(self, name: str) -> int:
        """A receiving socket, which has to have the address that the parts tell of."""
        fd = self.fds[name]
        with socket.socket(fileno=os.dup(fd)) as bound:
            if bound.getsockname()[:2] != (self.parts.local_address, self.parts.port):
                raise HostError(f"{name} is bound to another address")
        return fd
