"""The nice value of the threads that move packets: who has it, and what is said where the kernel refuses it."""

import asyncio
import logging
import os

import pytest
import uvloop
from test_udp_device import Dataplane, Tun

from udpbackend.backends import udp_device
from udpbackend.backends.backend import Movers
from udpbackend.backends.udp_device import Device, Plan
from udpbackend.dataplane import priority
from udpbackend.dataplane.priority import granted, raise_own

NICE = -7


def own_nice():
    return os.getpriority(os.PRIO_PROCESS, 0)


@pytest.fixture
def refusing(monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(priority.os, "setpriority", refuse)


@pytest.fixture
def device():
    def make(**more):
        made = Device(None, None, Dataplane(), Plan([0], [], workers=False, **more))
        made._tuns.append(Tun())
        return made

    return make


def test_a_thread_is_never_lowered():
    now = own_nice()
    assert raise_own(now + 1) == priority.Priority(now)
    assert own_nice() == now


@pytest.mark.usefixtures("refusing")
def test_what_the_kernel_refuses_is_told():
    found = granted(NICE)
    assert found.nice == own_nice()
    assert "nice -7 was refused (Permission denied): the capability SYS_NICE is needed" in found.refused


def test_the_only_queue_has_a_thread_of_its_own_where_its_priority_is_granted(device, monkeypatch):
    monkeypatch.setattr(udp_device, "granted", priority.Priority)
    monkeypatch.setattr(udp_device, "raise_session", lambda: None)

    async def check():
        made = device(nice=NICE)
        made.start()
        assert await asyncio.to_thread(made._dataplane.running.wait, 10)
        assert made.movers == Movers(threads=1, nice=NICE, unfiltered="--seccomp=false")
        async with made.lent():
            pass
        made._lent_until = 0.0
        await made._take_back()
        assert made.movers.threads == 1, "it is not the loop's to take back"
        await made.close()
        assert made._dataplane.did == ["open", "lent", "given back", "close"]

    uvloop.run(check())


@pytest.mark.usefixtures("refusing")
def test_without_the_right_to_it_the_loop_turns_the_queue_and_the_log_says_so_once(device, caplog):
    async def check():
        made = device(nice=NICE)
        for _ in range(2):
            made._tuns = made._tuns or [Tun()]
            made.start()
            assert (made.movers.threads, made.movers.nice) == (0, own_nice())
            await made.close()

    with caplog.at_level(logging.WARNING, udp_device.log.name):
        uvloop.run(check())
    (line,) = caplog.messages
    assert line.startswith("beside other programs packets may have to wait: nice -7 was refused")


def test_nice_0_asks_for_nothing(device):
    async def check():
        made = device(nice=0)
        made.start()
        assert made.movers == Movers(threads=0, nice=own_nice(), unfiltered="--seccomp=false")
        await made.close()

    uvloop.run(check())


def test_the_session_is_raised_though_the_kernel_wants_to_be_asked_again(device, monkeypatch):
    refusals = [BlockingIOError(), BlockingIOError()]
    told = asyncio.Event()

    def raise_session():
        if refusals:
            raise refusals.pop()
        asyncio.get_running_loop().call_soon(told.set)
        return -5

    monkeypatch.setattr(udp_device, "granted", priority.Priority)
    monkeypatch.setattr(udp_device, "raise_session", raise_session)
    monkeypatch.setattr(udp_device, "SESSION_PAUSE_S", 0.01)

    async def check():
        made = device(nice=NICE)
        made.start()
        await asyncio.wait_for(told.wait(), 10)
        assert made.movers.session_nice == -5
        await made.close()

    uvloop.run(check())


class TestSession:
    @pytest.fixture(autouse=True)
    def _leads(self, monkeypatch, tmp_path):
        monkeypatch.setattr(priority, "SESSION", tmp_path / "autogroup")
        monkeypatch.setattr(priority.os, "getsid", lambda _: os.getpid())

    def test_it_is_raised_once(self):
        priority.SESSION.write_text("/autogroup-4 nice 0\n")
        assert priority.raise_session() is None, "the file of this test holds what was written, not what a kernel says"
        assert priority.SESSION.read_text() == "-5"

    def test_one_that_is_higher_stays(self):
        priority.SESSION.write_text("/autogroup-4 nice -10\n")
        assert priority.raise_session() == -10
        assert priority.SESSION.read_text() == "/autogroup-4 nice -10\n"

    def test_one_that_others_share_stays(self, monkeypatch):
        monkeypatch.setattr(priority.os, "getsid", lambda _: os.getppid())
        priority.SESSION.write_text("/autogroup-4 nice 0\n")
        assert priority.raise_session() is None
        assert priority.SESSION.read_text() == "/autogroup-4 nice 0\n"

    @pytest.mark.parametrize("text", [None, "", "nothing we know"])
    def test_a_kernel_without_it(self, text):
        if text is not None:
            priority.SESSION.write_text(text)
        assert priority.raise_session() is None
