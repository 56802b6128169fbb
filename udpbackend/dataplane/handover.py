"""The words between a running daemon and its successor, and how the successor asks for the first of them.

Owns the messages and their fds on the wire. Must not know what is done with them.

Theory of operation. The successor listens on an abstract socket of its own and asks the running daemon, over its status
socket (POST /handover), to connect to it. Then, one message each (SOCK_SEQPACKET, JSON, fds beside it by SCM_RIGHTS):

    running daemon                    successor
    state      + all fds       ->                       packets still flow
                               <-     prepared + eventfds   it has opened the queues; a thread for each waits for its
                                                            eventfd, and for nothing else
    (each queue's eventfd is written at the end of its last batch: packets wait for no message)
    counted                    ->                       it has stopped; its counters are whole
                               <-     turning           it turns them, by a table that is not older
    served                     ->                       the status socket and the health port are free
                               <-     leave             its own control plane runs: the old daemon is needed no more
    left                       ->                       it has closed its fds

Until `leave` the old daemon stands by: when the connection ends, the successor is dead, and it turns its queues again.
A connection that ends on the successor's side means that the old one is dead, unless it has said `no` before: then it
turns its queues itself. So whoever is left goes on. In place of `state` the old one may say `yield`: it hands nothing
over, but stops, says `left`, and starts again only when the successor ends without a `leave`. So it does for a
successor of another format, which is why the request, `yield`, `left` and `leave` stay as they are in every format.
"""

from __future__ import annotations

import os
import socket
import struct
from array import array
from collections.abc import Mapping
from pathlib import Path

import msgspec

import udpbackend
from udpbackend.dataplane.estate import FORMAT
from udpbackend.errors import HostError

ANSWER_S = 5.0
"""How long the other side may take for one message that needs no waiting."""
LEAVE_S = 20.0
"""How long the old daemon may take to stop."""
MESSAGE_BYTES = 65536
FDS_IN_ONE = 200
"""Of one message; the kernel takes 253 (SCM_MAX_FD)."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a successor asks over the status socket."""

    format: int
    version: str
    settings: dict[str, str]
    address: str
    """The abstract socket it listens on, as hex digits, without the leading zero byte."""
    replace: bool = False


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One word of the conversation."""

    say: str
    names: list[str] = []
    """Of the fds that come with it."""
    exit: bool = False
    """With `leave`: end, instead of waiting to be told by whoever started you."""
    why: str = ""


class RefusedError(HostError):
    """The running daemon hands nothing over."""


def send(connection: socket.socket, message: Message, fds: Mapping[str, int] | None = None) -> None:
    """Sends a message with fds, borrowed, named. Raises OSError."""
    items = list((fds or {}).items())
    while len(items) > FDS_IN_ONE:
        part, items = items[:FDS_IN_ONE], items[FDS_IN_ONE:]
        _send(connection, Message(say="more", names=[name for name, _ in part]), [fd for _, fd in part])
    said = msgspec.structs.replace(message, names=[name for name, _ in items])
    _send(connection, said, [fd for _, fd in items])


def _send(connection: socket.socket, message: Message, fds: list[int]) -> None:
    data = msgspec.json.encode(message)
    if fds:
        socket.send_fds(connection, [data], fds)
    else:
        connection.send(data)


def receive(connection: socket.socket) -> tuple[Message, dict[str, int]] | None:
    """The next message and its fds, transferred; None at the end of the connection. Raises OSError, HostError."""
    found: dict[str, int] = {}
    try:
        while True:
            data, fds = _receive(connection)
            if not data:
                _close(found)
                return None
            try:
                message = msgspec.json.decode(data, type=Message)
            except msgspec.DecodeError as error:
                _close(dict(enumerate(fds)))
                raise HostError(f"the other udp-backend speaks another language: {error}") from None
            found |= zip(message.names, fds, strict=False)
            if message.say != "more":
                return message, found
    except BaseException:
        _close(found)
        raise


def _receive(connection: socket.socket) -> tuple[bytes, array[int]]:
    """One message with its fds, none of which a program that we run inherits: socket.recv_fds() forgets the flag."""
    fds = array("i")
    room = socket.CMSG_LEN(FDS_IN_ONE * fds.itemsize)
    data, ancillary, _, _ = connection.recvmsg(MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, fds


def _close(fds: Mapping[str, int] | dict[int, int]) -> None:
    for fd in fds.values():
        os.close(fd)


def answers(path: Path) -> bool:
    """Whether a running daemon, or another program, listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(os.fspath(path)) == 0


def ask(path: Path, settings: dict[str, str], *, replace: bool) -> socket.socket | None:
    """The connection to the daemon that answers on `path`, ready for its first message; None where none answers.

    Raises RefusedError with its reason, or where it does not answer in the way of a udp-backend.
    """
    with socket.socket(socket.AF_UNIX) as asking, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        asking.settimeout(ANSWER_S)
        listener.settimeout(ANSWER_S)
        try:
            asking.connect(str(path))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):  # what is wrong there, a start will say
            return None
        except OSError as error:
            raise RefusedError(error.strerror or str(error)) from None
        listener.bind("")  # the kernel chooses an abstract name
        listener.listen(1)
        request = Request(
            format=FORMAT,
            version=udpbackend.__version__,  # takes a while to look up, and the running one still moves packets
            settings=settings,
            address=listener.getsockname()[1:].hex(),
            replace=replace,
        )
        try:
            _post(asking, msgspec.json.encode(request))
            connection, _ = listener.accept()
        except TimeoutError:
            raise RefusedError(f"it does not answer within {ANSWER_S:g} s") from None
        except OSError as error:
            raise RefusedError(error.strerror or str(error)) from None
    if peer(connection) not in (0, os.geteuid()):
        connection.close()
        raise RefusedError("another user has answered")
    connection.settimeout(ANSWER_S)
    return connection


def _post(asking: socket.socket, body: bytes) -> None:
    """One HTTP request, without the library that would take longer to load than the handover takes."""
    head = f"POST /handover HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    asking.sendall(head.encode() + body)
    answer = b""
    while data := asking.recv(MESSAGE_BYTES):
        answer += data
    status, _, rest = answer.partition(b"\r\n")
    if status.split()[1:2] == [b"200"]:
        return
    if status.split()[1:2] in ([b"404"], [b"405"]):
        raise RefusedError("its version knows no handover")
    text = rest.partition(b"\r\n\r\n")[2].decode(errors="replace").strip()
    raise RefusedError(text or "it is no udp-backend")


def peer(connection: socket.socket) -> int:
    """The user on the other side."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("=iII", raw)[1])
