"""A successor asks: what it makes of daemons that do not hand over, and how words and fds travel."""

import os
import socket
import threading

import pytest

from udpbackend.dataplane import handover
from udpbackend.dataplane.handover import FDS_IN_ONE, Message, RefusedError, ask, receive, send
from udpbackend.errors import HostError


@pytest.fixture
def answering(tmp_path):
    """Listens on a status socket and gives one answer, after which it closes the connection."""
    threads = []

    def make(answer):
        path = tmp_path / "status.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1)

        def serve():
            with listener, listener.accept()[0] as connection:
                connection.recv(65536)
                if answer is not None:
                    connection.sendall(answer)
                else:
                    connection.recv(1)  # until the other side gives up

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        return path

    yield make
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n404: Not Found", "its version knows no handover"),
        (b"HTTP/1.1 405 Method Not Allowed\r\n\r\n", "its version knows no handover"),
        (b"HTTP/1.1 409 Conflict\r\nX: y\r\n\r\nit is still starting\n", "it is still starting"),
        (b"SSH-2.0-OpenSSH\r\n", "it is no udp-backend"),
        (b"", "it is no udp-backend"),
        (None, "it does not answer within"),
        (b"HTTP/1.1 200 OK\r\n\r\nit does", "it does not answer within"),
    ],
    ids=["older", "older still", "refused", "another program", "closed at once", "silent", "never connects"],
)
def test_a_daemon_that_does_not_hand_over(answering, monkeypatch, answer, why):
    monkeypatch.setattr(handover, "ANSWER_S", 0.3)
    with pytest.raises(RefusedError, match=why):
        ask(answering(answer), {}, replace=False)


def test_nobody_is_there(tmp_path):
    assert ask(tmp_path / "none.sock", {}, replace=False) is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    assert ask(tmp_path / "dead.sock", {}, replace=False) is None


@pytest.fixture
def pair():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other.settimeout(5)
    with one, other:
        yield one, other


@pytest.mark.parametrize("count", [0, 1, FDS_IN_ONE, FDS_IN_ONE + 1, 2 * FDS_IN_ONE + 7])
def test_fds_keep_their_names_however_many_they_are(pair, count):
    one, other = pair
    made = {f"send-{number}": os.eventfd(number) for number in range(count)}
    send(one, Message(say="state"), made)
    message, found = receive(other)
    assert message.say == "state"
    assert {name: os.eventfd_read(fd) if name != "send-0" else 0 for name, fd in found.items()} == {
        f"send-{number}": number for number in range(count)
    }
    assert not any(os.get_inheritable(fd) for fd in found.values())
    for fd in (*made.values(), *found.values()):
        os.close(fd)


def test_the_end_and_nonsense(pair):
    one, other = pair
    one.send(b"not JSON")
    with pytest.raises(HostError, match="another language"):
        receive(other)
    one.close()
    assert receive(other) is None


def test_an_fd_that_came_with_nonsense_is_closed(pair):
    one, other = pair
    ours, theirs = os.pipe()
    socket.send_fds(one, [b"[]"], [theirs])
    os.close(theirs)
    with pytest.raises(HostError):
        receive(other)
    assert os.read(ours, 1) == b"", "the last holder of the other end has closed it"
    os.close(ours)
