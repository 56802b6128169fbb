"""A start that goes on where another process stopped: its queues turn before registry or backend have a say.

Owns whom this start has its fds from, and the queues (dataplane.queues) until the backend claims them. It loads the
standard library, the C extension and what stands below it, and nothing of registries, backends or the event loop: what
is imported here, packets wait for where the one before has died. Where it lives, the opposite holds: it turns its
queues until they are asked for, so all else is loaded before, and little is left to do beside packets that are ours.

Fds come from the service manager's store, where a killed daemon had put them, or from a running daemon that hands over.
Whatever does not fit (other settings, another format, an fd that is missing or dead) is let go of whole, and the start
becomes an ordinary one: nothing is taken over in part.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress

from udpbackend.dataplane import estate, handover
from udpbackend.dataplane.estate import State
from udpbackend.dataplane.fdstore import FdStore
from udpbackend.dataplane.handover import ANSWER_S, LEAVE_S, Message
from udpbackend.dataplane.queues import Queues
from udpbackend.errors import HostError, UdpBackendError
from udpbackend.settings import Settings


class EndedError(HostError):
    """The running daemon has died before it handed over."""


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
        if self._predecessor is None or (self._left and not leave):
            return
        self.served()
        with suppress(OSError):
            handover.send(self._predecessor, Message(say="leave", exit=leave))
        if not self._left:
            self._left = True
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

    def begin(self, settings: Settings, environ: MutableMapping[str, str], load: Callable[[], None]) -> None:
        """Finds out what there is to go on with, and turns it."""
        stored = self.store.received(environ)
        if handover.answers(settings.status_socket):
            load()
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
            queues.open(fds)
            queues.hold()
            queues.go()
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

    def _take_queues(self, connection: socket.socket, fds: dict[str, int], settings: Settings) -> None:
        known = _read_and_close(fds)
        state = estate.newest(fds)
        if state is None or known is None:
            _close(fds)
            raise HostError("it has sent no table")
        queues = self._queues = Queues(state, settings, f"udp-backend {state.header.version}")
        queues.learn(known)
        queues.open(fds)
        try:
            self._await_turn(connection, queues, queues.hold())
            self._served = False
            self.notes.append(f"took over {_counted(queues)} from udp-backend {state.header.version}")
        except EndedError:
            queues.go()
            queues.count(known)
            self._predecessor, self._left = None, True
            connection.close()
            self.notes.append(f"the running udp-backend has ended: going on with its {_counted(queues)}")

    def _await_turn(self, connection: socket.socket, queues: Queues, eventfds: dict[str, int]) -> None:
        """Says that we are ready. The predecessor's threads wake ours: for what is said after that no packet waits."""
        with suppress(BrokenPipeError):  # it has ended: so says what is read next
            handover.send(connection, Message(say="prepared"), eventfds)
        _, fds = self._next("counted")
        counted = _read_and_close(fds)
        queues.go()
        queues.follow()
        if counted is not None:
            queues.header = counted.header
            queues.learn(counted)
            queues.count(counted)
        try:
            handover.send(connection, Message(say="turning"))
        except OSError:  # it is dead, or it has lost patience and turns them itself
            with suppress(OSError):
                connection.settimeout(ANSWER_S)
                if (last_word := handover.receive(connection)) is not None and last_word[0].say == "no":
                    raise HostError("it waited no longer") from None


def begin(settings: Settings, environ: MutableMapping[str, str], load: Callable[[], None]) -> Inheritance:
    """Everything this start has from others. Raises HostError where a running daemon refuses or a handover fails.

    `load`: loads what the rest of the start needs; called before a running daemon is asked, because it moves packets.
    """
    found = Inheritance()
    found.begin(settings, environ, load)
    return found


def _counted(queues: Queues) -> str:
    count = len(queues.workers)
    return f"{count} queue{'s' * (count != 1)}, {queues.routes} routes"


def _close(fds: Mapping[str, int]) -> None:
    for fd in fds.values():
        os.close(fd)


def _read_and_close(fds: dict[str, int]) -> State | None:
    """Takes the state that came with a word out of its fds."""
    fd = fds.pop("state", -1)
    if fd < 0:
        return None
    try:
        return estate.read(fd)
    finally:
        os.close(fd)
