"""The command `reload` and the daemon that it starts: what the one makes of the other's end."""

import os
import select
import signal

import pytest

from udpbackend import launch
from udpbackend.errors import HostError
from udpbackend.settings import Settings

SOON_S = 10


@pytest.mark.parametrize("moment", ["before the daemon is ready", "before the manager knows it"])
def test_a_daemon_whose_command_was_killed_does_not_send_the_old_one_away(monkeypatch, moment):
    """The manager takes the old one for the main process still, and would end both with it."""
    began, begin = os.pipe()
    heard, say = os.pipe()
    killed, kill = os.pipe()

    def daemon(_settings, ready):
        os.write(begin, b"x")
        os.read(killed, 1)
        try:
            ready()
        except HostError as error:
            os.write(say, str(error).encode())
        except BaseException as error:  # noqa: BLE001 whatever it is, the test is to see it
            os.write(say, repr(error).encode())
        else:
            os.write(say, b"goes on alone")
        os._exit(0)

    def dies(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(launch.handover, "answers", lambda _: True)
    monkeypatch.setattr(launch, "run", daemon)
    monkeypatch.setattr(launch, "notify", dies)
    command = os.fork()
    if command == 0:
        os.close(kill)
        launch.reload(Settings())
        os._exit(1)
    assert select.select([began], [], [], SOON_S)[0]
    if moment == "before the daemon is ready":
        os.kill(command, signal.SIGKILL)
        os.waitpid(command, 0)
    os.close(kill)
    assert select.select([heard], [], [], SOON_S)[0]
    assert "`reload` has ended before this daemon was ready" in os.read(heard, 1000).decode()
    if moment != "before the daemon is ready":
        os.waitpid(command, 0)
    for fd in (began, begin, heard, say, killed):
        os.close(fd)
