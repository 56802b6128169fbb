"""A start that goes on where another process stopped: its queues turn before anything else of us is loaded.

Owns the dataplane made from inherited fds and a packed table alone, until the backend claims it. It loads the standard
library, the C extension and what stands below it, and nothing of registries, backends or the event loop: what is
imported here, packets wait for.

Fds come from the service manager's store, where a killed daemon had put them, or from a running daemon that hands over.
Whatever does not fit (other settings, another format, an fd that is missing or dead) is let go of whole, and the start
becomes an ordinary one: nothing is taken over in part.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from udpbackend.dataplane import estate, handover
from udpbackend.dataplane.estate import Parts, State
from udpbackend.dataplane.fdstore import FdStore
from udpbackend.dataplane.handover import ANSWER_S, LEAVE_S, Message
from udpbackend.dataplane.priority import hurried
from udpbackend.errors import HostError, UdpBackendError
from udpbackend.settings import Settings

if TYPE_CHECKING:  # loaded only once there is something to turn
    from udpbackend.dataplane.native import Dataplane
    from udpbackend.dataplane.worker import Worker


class EndedError(HostError):
    """The running daemon has died before it handed over."""


class Queues:
    """Open queues that turn, each in a thread: what was inherited, until `Inheritance.claim` gives it away."""

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
        self.routes = len(state.routes) // native.ROUTE.size
        self.dataplane: Dataplane = native.Dataplane(
            tun_address=IPv4Address(self.parts.tun_address),
            tun_address6=IPv6Address(self.parts.tun_address6) if self.parts.tun_address6 else None,
            options=native.Options.of(settings),
        )
        self.dataplane.publish(state.routes)
        native.counter_infos()  # read now, not while packets wait

    def count(self, state: State) -> None:
        """Goes on from the counters of a state, if this version knows each of them."""
        from udpbackend.dataplane import native  # noqa: PLC0415 as above

        names = [info.name for info in native.counter_infos()]
        if not state.header.counters.keys() - set(names):
            self.dataplane.add_counters([state.header.counters.get(name, 0) for name in names])
        if state.row_bytes == native.ROW_BYTES:
            self.dataplane.restore_peers(state.peers)

    def hold(self) -> None:
        """Starts the threads, which wait for their queues: what is left to do then is short."""
        from udpbackend.dataplane.worker import Worker  # noqa: PLC0415 as above

        cpus, nice = self._settings.worker_cpus, self._settings.nice
        for queue in range(sum(name.startswith("tun-") for name in self.parts.fds)):
            cpu = cpus[queue % len(cpus)] if cpus else None
            self.workers.append(Worker(self.dataplane, queue, nice=nice, cpu=cpu))
            self.workers[-1].start(hold=True)

    def start(self, fds: dict[str, int]) -> None:
        """Turns the queues; `fds` are transferred. Raises UdpBackendError where they are not what is needed."""
        self.fds |= fds
        if missing := [name for name in self.parts.fds if name not in self.fds]:
            raise HostError(f"incomplete: there is no {missing[0]}")
        senders = [self.fds[name] for name in self.parts.fds if name.startswith("send-")]
        for queue, worker in enumerate(self.workers):
            self.dataplane.open_queue(queue, self.fds[f"tun-{queue}"], self._bound(f"udp-{queue}"))
            for sender in senders:
                self.dataplane.add_socket(queue, sender)
            worker.go()

    def stop(self) -> None:
        """Stops turning and closes everything."""
        for queue, worker in enumerate(self.workers):
            worker.halt()
            self.dataplane.close_queue(queue)
        self.workers = []
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


class Inheritance:
    """What this start has from others: the manager's fd store, perhaps a predecessor, perhaps queues that turn.

    Its methods wait for other processes: on an event loop they belong into a thread.
    """

    def __init__(self) -> None:
        self.store = FdStore()
        self.notes: list[str] = []
        """What is worth a line in the log, which is not set up while `begin` runs."""
        self._queues: Queues | None = None
        self._predecessor: socket.socket | None = None
        self._left = True
        """Whether the predecessor, if any, has closed its fds."""
        self._served = True

    @property
    def queues(self) -> Queues | None:
        """What turns and nobody has claimed yet."""
        return self._queues

    @property
    def age_s(self) -> float | None:
        """How old the table is by which unclaimed queues turn."""
        return None if self._queues is None else max(0.0, time.time() - self._queues.header.published_at)

    def claim(self) -> Queues:
        """The queues; from now on the caller's."""
        if self._queues is None:
            raise HostError("nothing was inherited")
        claimed, self._queues = self._queues, None
        return claimed

    def abandon(self) -> None:
        """Lets go of unclaimed queues, wherever they are still held: they do not fit."""
        if self._queues is None:
            return
        self._queues.stop()
        self._queues = None
        self.confirm()
        self.store.forget()

    def served(self) -> None:
        """Waits until the predecessor no longer listens on the status socket and the health port."""
        if not self._served:
            self._hear("served", LEAVE_S)
            self._served = True

    def confirm(self, *, leave: bool = False) -> None:
        """Tells the predecessor that it is needed no more, and waits until it has closed its fds.

        With `leave` it ends; otherwise it waits to be stopped by whoever has started it.
        """
        if self._predecessor is None or self._left:
            return
        self.served()
        self._left = True
        with suppress(OSError):
            handover.send(self._predecessor, Message(say="leave", exit=leave))
        self._hear("left", LEAVE_S)

    def close(self) -> None:
        """Stops what nobody has claimed. A predecessor that was not told to leave goes on as soon as we have ended."""
        if self._queues is not None:
            self._queues.stop()
            self._queues = None

    def _hear(self, word: str, seconds: float) -> None:
        """Waits for a word; a predecessor that has ended has done all that it could say."""
        connection = self._predecessor
        if connection is None:
            return
        connection.settimeout(seconds)
        try:
            heard = handover.receive(connection)
        except TimeoutError:
            raise HostError(f"the udp-backend before us has not said {word!r} within {seconds:g} s") from None
        except OSError:
            return
        if heard is not None and heard[0].say != word:
            raise HostError(f"the udp-backend before us said {heard[0].say!r}, expected {word!r}")

    # ---- what happens before anything else is loaded ----

    def begin(self, settings: Settings, environ: MutableMapping[str, str]) -> None:
        """Finds out what there is to go on with, and turns it."""
        stored = self.store.received(environ)
        try:
            connection = handover.ask(settings.status_socket, settings.identity(), replace=settings.replace)
        except handover.RefusedError as error:
            _close(stored)
            raise HostError(
                f"another udp-backend answers on {settings.status_socket} and does not hand over: {error}; "
                "stop it, add --replace, or give this one its own --subnet-file"
            ) from None
        if connection is not None:
            _close(stored)  # they are among those that it holds
            self._take_over(connection, settings)
        elif stored:
            self._revive(settings, stored)

    def _revive(self, settings: Settings, fds: dict[str, int]) -> None:
        state = estate.newest(fds)
        try:
            if state is None:
                raise HostError("no table was left with them")
            if state.header.settings != settings.identity():
                raise HostError("the settings have changed")
            queues = Queues(state, settings, "the service manager")
        except UdpBackendError as error:
            _close(fds)
            self._refuse(error)
            return
        try:
            queues.hold()
            queues.start(fds)
        except (UdpBackendError, OSError) as error:
            queues.stop()
            self._refuse(error)
            return
        self._queues = queues
        self.notes.append(f"going on with {_counted(queues)} that the service manager kept, by the last routes")

    def _refuse(self, error: Exception) -> None:
        self.notes.append(f"not going on with the fds that the service manager kept, starting anew: {error}")
        self.store.forget()

    def _take_over(self, connection: socket.socket, settings: Settings) -> None:
        self._predecessor, self._left = connection, False
        try:
            message, fds = self._next("state", "yield")
            if message.say == "yield":
                self._await_stop(message.why)
            else:
                self._take_queues(connection, fds, settings)
        except EndedError:
            self._drop()
            self.notes.append("the running udp-backend has ended before it handed over: starting anew")
        except (OSError, UdpBackendError) as error:
            self._drop()
            raise HostError(f"the handover from the running udp-backend failed, it goes on: {error}") from None

    def _drop(self) -> None:
        self.close()
        if self._predecessor is not None:
            self._predecessor.close()
            self._predecessor = None

    def _next(self, *expected: str) -> tuple[Message, dict[str, int]]:
        """The predecessor's next word, which must be one of these."""
        try:
            heard = handover.receive(self._predecessor) if self._predecessor is not None else None
        except ConnectionResetError:
            heard = None
        if heard is None:
            raise EndedError("it has ended")
        if heard[0].say not in expected:
            _close(heard[1])
            raise HostError(heard[0].why or f"it says {heard[0].say!r}")
        return heard

    def _await_stop(self, why: str) -> None:
        if why:
            self.notes.append(f"the running udp-backend stops without a handover, packets are lost for a moment: {why}")
        self._hear("left", LEAVE_S)
        self._left = True

    def _take_queues(self, connection: socket.socket, memfds: dict[str, int], settings: Settings) -> None:
        state = estate.newest(memfds)
        if state is None:
            _close(memfds)
            raise HostError("it has sent no table")
        queues = self._queues = Queues(state, settings, f"udp-backend {state.header.version}")
        queues.fds |= memfds
        queues.hold()
        with hurried(settings.nice):
            self._start_given(connection, queues)
        self.notes.append(f"took over {_counted(queues)} from udp-backend {state.header.version}")

    def _start_given(self, connection: socket.socket, queues: Queues) -> None:
        """The part that packets wait for."""
        with suppress(BrokenPipeError):  # it has ended: so says what is read next
            handover.send(connection, Message(say="prepared"))
        _, fds = self._next("queues")
        last = fds.pop("state", -1)
        try:
            if (counted := estate.read(last)) is not None:
                queues.count(counted)
                queues.header = counted.header
        finally:
            if last >= 0:
                os.close(last)
        queues.start(fds)
        self._served = False
        try:
            handover.send(connection, Message(say="turning"))
        except OSError:  # it is dead, or it has lost patience and turns them itself
            with suppress(OSError):
                connection.settimeout(ANSWER_S)
                if (last_word := handover.receive(connection)) is not None and last_word[0].say == "no":
                    raise HostError("it waited no longer") from None


def begin(settings: Settings, environ: MutableMapping[str, str]) -> Inheritance:
    """Everything this start has from others. Raises HostError where a running daemon refuses or a handover fails."""
    found = Inheritance()
    found.begin(settings, environ)
    return found


def _counted(queues: Queues) -> str:
    count = len(queues.workers)
    return f"{count} queue{'s' * (count != 1)}, {queues.routes} routes"


def _close(fds: Mapping[str, int]) -> None:
    for fd in fds.values():
        os.close(fd)
