"""The queue on flannel0 changes hands: between the loop and a thread, and a device that is closed meanwhile."""

import asyncio
import os
import select
import threading

import pytest
import uvloop

from udpbackend.backends import udp_device
from udpbackend.backends.udp_device import Device, Plan


class Dataplane:
    """One queue that never has work, and what was done with it in order."""

    guarded = False

    def __init__(self):
        self.did = []
        self.running = threading.Event()
        self._fd = -1

    def open_queue(self, _queue, _tun_fd, _udp_fd):
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.did.append("open")

    def guard(self, _queue):
        return 0

    def queue_fd(self, _queue):
        assert self._fd >= 0, "closed"
        return self._fd

    def run(self, _queue, stop_fd):
        self.did.append("lent")
        self.running.set()
        select.select([stop_fd], [], [])
        self.did.append("given back")
        return 0

    def crowded(self, _queue):
        return False

    def close_queue(self, _queue):
        os.close(self._fd)
        self._fd = -1
        self.did.append("close")


class Tun:
    def fileno(self):
        return 0

    def close(self):
        pass


@pytest.fixture
def device():
    def make(*, workers=False):
        made = Device(None, None, Dataplane(), Plan([0], [], workers))
        made._tuns.append(Tun())
        made.start()
        return made

    return make


def test_a_queue_stays_lent_over_a_series_of_work_and_is_taken_back_later(device, monkeypatch):
    async def check():
        made = device()
        for _ in range(2):
            async with made.lent():
                pass
            await made._take_back()
        assert await asyncio.to_thread(made._dataplane.running.wait, 10)
        before = list(made._dataplane.did)
        monkeypatch.setattr(made, "_lent_until", 0.0)
        await made._take_back()
        await made._take_back()
        after = list(made._dataplane.did)
        await made.close()
        assert before == ["open", "lent"]
        assert after == ["open", "lent", "given back"]
        assert made._dataplane.did == ["open", "lent", "given back", "close"]

    uvloop.run(check())


def test_a_queue_that_is_still_lent_is_closed_like_any_other(device):
    async def check():
        made = device()
        async with made.lent():
            closing = asyncio.create_task(made.close())
            await asyncio.sleep(0)
        await closing
        assert made._dataplane.did == ["open", "lent", "given back", "close"]

    uvloop.run(check())


def test_a_stop_does_not_wait_for_who_has_borrowed_the_queue(device):
    """Who reads a status of thousands of peers takes as long as it likes."""

    async def check():
        made = device()
        async with asyncio.timeout(10), made.lent():
            await made.close()
        assert made._dataplane.did == ["open", "lent", "given back", "close"]

    uvloop.run(check())


def test_what_is_borrowed_is_not_taken_back_however_long_that_lasts(device, monkeypatch):
    async def check():
        made = device()
        async with asyncio.timeout(10), made.lent():
            async with made.lent():
                pass
            await asyncio.to_thread(made._dataplane.running.wait, 10)
            monkeypatch.setattr(made, "_lent_until", 0.0)
            await made._take_back()
            during = list(made._dataplane.did)
        await made.close()
        assert during == ["open", "lent"]

    uvloop.run(check())


def test_a_device_closed_while_its_queue_is_about_to_be_lent(device):
    async def check():
        made = device()

        async def borrow():
            async with made.lent():
                pass

        await asyncio.gather(borrow(), made.close())
        assert made._dataplane.did == ["open", "lent", "given back", "close"]

    uvloop.run(check())


def test_nothing_is_lent_where_threads_turn_the_queues_anyway_or_none_is_open(device):
    async def check():
        made = device(workers=True)
        async with made.lent():
            pass
        await made.close()
        async with made.lent():
            pass
        assert made._dataplane.did == ["open", "lent", "given back", "close"], "the worker's own run, and no other"

    uvloop.run(check())


@pytest.mark.parametrize(
    ("guarded", "guard", "said"),
    [
        (True, 1, (1, "")),
        (True, 0, (0, "")),  # its thread is not there yet
        (True, -22, (0, "not granted (Invalid argument)")),
        (False, 0, (0, "--seccomp=false")),
    ],
)
def test_it_says_whether_its_threads_have_a_filter(device, monkeypatch, guarded, guard, said):
    monkeypatch.setattr(Dataplane, "guarded", guarded)
    monkeypatch.setattr(Dataplane, "guard", lambda *_: guard)

    async def check():
        made = device(workers=True)
        assert (made.movers.filtered, made.movers.unfiltered) == said
        await made.close()

    uvloop.run(check())


def test_a_refused_call_is_a_problem(monkeypatch):
    monkeypatch.setattr(udp_device, "calls_refused", lambda: (0, 0))
    assert udp_device.refused_calls() == ()
    monkeypatch.setattr(udp_device, "calls_refused", lambda: (1, 318))
    assert udp_device.refused_calls() == (
        "the seccomp filter refused a system call of a thread that moves packets, the last one number 318",
    )
