"""The service manager's fd store: what is sent to it, what comes back, and whether it keeps what it was sent."""

import os
import socket
import threading

import pytest

from udpbackend.dataplane.fdstore import FdStore
from udpbackend.notify import barrier


class Manager:
    """Keeps up to `room` fds."""

    def __init__(self, path, room):
        self.room = room
        self.kept, self.said = {}, []
        self._receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._receiver.bind(str(path))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            data, fds, _, _ = socket.recv_fds(self._receiver, 4096, 253)
            if data == b"END":
                return
            said = dict(line.partition("=")[::2] for line in data.decode().splitlines())
            self.said.append(said)
            if "FDSTORE" in said and len(self.kept) < self.room:
                self.kept[said["FDNAME"]] = fds.pop()
            if "FDSTOREREMOVE" in said and said["FDNAME"] in self.kept:
                os.close(self.kept.pop(said["FDNAME"]))
            for fd in fds:
                os.close(fd)

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"END", self._receiver.getsockname())
        self._thread.join()
        self._receiver.close()
        for fd in self.kept.values():
            os.close(fd)


@pytest.fixture
def manage(tmp_path, monkeypatch):
    made = []

    def make(room):
        made.append(Manager(tmp_path / "notify", room))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        return made[0]

    yield make
    for manager in made:
        manager.close()


@pytest.fixture
def fds():
    made = {name: os.eventfd(0) for name in ("tun-0", "udp-0", "state-a")}
    yield made
    for fd in made.values():
        os.close(fd)


def test_all_are_kept_and_no_probe_stays(manage, fds):
    manager, store = manage(64), FdStore()
    assert store.keep(fds) is True
    store.forget()
    assert not manager.kept
    assert store.keep(fds) is True
    assert barrier(), "it has read what came last"
    assert manager.kept.keys() == fds.keys()


def test_the_manager_is_never_to_drop_one_for_an_error_on_it(manage, fds):
    manager = manage(64)
    FdStore().keep(fds)
    assert all(said["FDPOLL"] == "0" for said in manager.said if "FDSTORE" in said)


@pytest.mark.parametrize("room", [0, 1, 3])
def test_a_manager_without_room_for_all_of_them_does_not_count(manage, fds, room):
    """With room for exactly all of them, the probe has none: that is not worth telling apart."""
    manage(room)
    assert FdStore().keep(fds) is False


def test_no_manager_keeps_nothing(fds, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert FdStore().keep(fds) is False


def test_what_is_no_longer_there_is_forgotten(manage, fds):
    manager, store = manage(64), FdStore()
    store.keep(fds)
    store.keep({"udp-0": fds["udp-0"]})
    store.forget()
    assert not manager.kept
    assert {"FDSTOREREMOVE": "1", "FDNAME": "tun-0"} in manager.said


def test_another_fd_of_a_name_takes_the_place_of_the_first(manage, fds):
    """A manager keeps all that it is sent under one name, so the one before has to be forgotten."""
    manager, store = manage(64), FdStore()
    store.keep(fds)
    manager.said.clear()
    assert store.keep(fds, anew=["tun-0"]) is True
    assert barrier()
    about = [word for said in manager.said if said.get("FDNAME") == "tun-0" for word in said if word != "FDNAME"]
    assert about == ["FDSTOREREMOVE", "FDSTORE", "FDPOLL"]
    assert manager.kept.keys() == fds.keys()


def received(environ):
    """What a process with these fds and variables finds, in a process of its own: numbers from 3 on are taken here."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for number in (3, 4, 5):
                os.dup2(os.open("/dev/null", os.O_RDONLY), number, inheritable=True)
            environ = {key: value.replace("PID", str(os.getpid())) for key, value in environ.items()}
            found = FdStore().received(environ)
            names = ",".join(f"{name}={fd}:{int(os.get_inheritable(fd))}" for name, fd in found.items())
            os.write(theirs, f"{names} {sorted(environ)}".encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(theirs)
    with os.fdopen(ours) as answer:
        return answer.read()


@pytest.mark.parametrize(
    ("count", "names", "pid", "found"),
    [
        ("2", "tun-0:udp-0", "PID", "tun-0=3:0,udp-0=4:0 []"),
        ("3", "tun-0:tun-0:udp-0", "PID", "tun-0=3:0,udp-0=5:0 []"),
        ("2", "tun-0:udp-0", "1", " []"),
        ("x", "tun-0:udp-0", "PID", " []"),
        ("0", "", "PID", " []"),
    ],
    ids=["two", "one stored twice", "meant for another process", "no number", "none"],
)
def test_what_a_start_is_given(count, names, pid, found):
    # A number above 5 is used by pytest itself, so the pipe's end must lie there, too.
    assert received({"LISTEN_FDS": count, "LISTEN_FDNAMES": names, "LISTEN_PID": pid}) == found
