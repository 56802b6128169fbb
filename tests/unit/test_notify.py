"""The service manager's socket, on real datagram sockets."""

import socket
import threading

import pytest

from udpbackend.notify import notify


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(5)
        if request.param == "path":
            receiver.bind(str(tmp_path / "notify"))
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        else:
            receiver.bind("")  # the kernel chooses an abstract name
            monkeypatch.setenv("NOTIFY_SOCKET", "@" + receiver.getsockname()[1:].decode())
        yield receiver


def test_all_assignments_come_in_one_datagram(manager):
    notify("READY=1", "STATUS=ready, 14 of 15 peers seen")
    assert manager.recv(1000) == b"READY=1\nSTATUS=ready, 14 of 15 peers seen"


def test_a_text_cannot_smuggle_in_another_assignment(manager):
    notify("STATUS=one\nSTOPPING=1")
    assert manager.recv(1000) == b"STATUS=one STOPPING=1"


@pytest.mark.parametrize("value", [None, "", "vsock:2:1234", "/nowhere/at/all"])
def test_nobody_listening_is_no_error(monkeypatch, value):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if value is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", value)
    notify("READY=1")


def fill(manager):
    """Until the manager's socket takes no more: ten datagrams, where nobody has asked the kernel for more."""
    for _ in range(2000):
        if not notify("STATUS=" + "x" * 500, patience_s=0.0):
            return
    pytest.fail("it is never full")


def test_a_manager_that_does_not_read_is_not_waited_for_without_patience(manager):
    fill(manager)
    assert manager.recv(1000)


def test_a_manager_that_is_behind_is_waited_for(manager):
    """What is lost is said once only: a service would never be ready, or an fd be kept that is to go."""
    fill(manager)
    heard = []

    def read():
        while not heard or heard[-1] != b"READY=1":
            heard.append(manager.recv(1000))

    reader = threading.Timer(0.1, read)
    reader.start()
    assert notify("READY=1") is True
    reader.join()
    assert heard[-1] == b"READY=1"


def test_a_manager_that_never_reads_is_given_up(manager):
    fill(manager)
    assert notify("READY=1", patience_s=0.1) is False
