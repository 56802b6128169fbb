"""The nice value of the threads that move packets: who has it, and what is said where the kernel refuses it."""

import asyncio
import logging
import os
from pathlib import Path

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
    monkeypatch.setattr(priority, "SESSION", Path("/nowhere"))

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


class TestSession:
    @pytest.fixture(autouse=True)
    def _leads(self, monkeypatch, tmp_path):
        monkeypatch.setattr(priority, "SESSION", tmp_path / "autogroup")
        monkeypatch.setattr(priority.os, "getsid", lambda _: os.getpid())

    @pytest.fixture
    def session(self):
        """What the kernel would answer: the file holds what was written."""

        def made(nice=0):
            priority.SESSION.write_text(f"/autogroup-4 nice {nice}\n")
            return priority.Session()

        return made

    def test_it_is_raised_while_other_programs_keep_the_core(self, session, monkeypatch):
        it, written = session(), []
        monkeypatch.setattr(priority, "_session_nice", lambda: written[-1] if written else 0)
        monkeypatch.setattr(type(priority.SESSION), "write_text", lambda _, text, **__: written.append(int(text)))
        for now, crowded in ((1.0, False), (2.0, True), (3.0, False), (2.0 + priority.CALM_S, False), (99.0, True)):
            it.follow(crowded=crowded, now=now)
        assert written == [-5, 0, -5]

    def test_a_kernel_that_wants_to_be_asked_again_is(self, session, monkeypatch):
        """Without CAP_SYS_ADMIN one such change in a tenth of a second passes, of all daemons of the host."""
        it, answers = session(), [BlockingIOError(), PermissionError(), None]

        def write(_, text, **__):
            if (answer := answers.pop(0)) is not None:
                raise answer
            assert text == "-5"

        monkeypatch.setattr(type(priority.SESSION), "write_text", write)
        for now in (1.0, 2.0, 3.0):
            it.follow(crowded=True, now=now)
        assert not answers

    def test_one_that_is_higher_stays(self, session):
        it = session(-10)
        it.follow(crowded=True, now=1.0)
        assert (it.counts, it.nice) == (False, -10)
        assert priority.SESSION.read_text() == "/autogroup-4 nice -10\n"

    def test_one_that_others_share_stays(self, session, monkeypatch):
        monkeypatch.setattr(priority.os, "getsid", lambda _: os.getppid())
        it = session()
        it.follow(crowded=True, now=1.0)
        assert (it.counts, it.nice) == (False, None)
        assert priority.SESSION.read_text() == "/autogroup-4 nice 0\n"

    @pytest.mark.parametrize("text", [None, "", "nothing we know"])
    def test_a_kernel_without_it(self, text):
        if text is not None:
            priority.SESSION.write_text(text)
        it = priority.Session()
        it.follow(crowded=True, now=1.0)
        assert (it.counts, it.nice) == (False, None)
