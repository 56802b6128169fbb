"""When is looked at the kernel, and what is said of it; shared by the backends that leave their packets to it."""

import asyncio
import logging

import pytest
import uvloop

from udpbackend.backends import keeper as module
from udpbackend.backends.keeper import PROBLEMS_SHOWN, Keeper, Look
from udpbackend.errors import HostError


class Netlink:
    """Tells of changes when the test says so."""

    def __init__(self):
        self.changed = asyncio.Event()

    def changes(self):
        return self.changed


class Looks:
    """Answers looks in turn with what it was given; the last one for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.count = 0
        self.seen = asyncio.Event()

    async def __call__(self):
        self.count += 1
        self.seen.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def begun(keeper):
    """Its repairs run, after the first look."""
    await keeper.start()
    return asyncio.create_task(keeper.run())


async def until_looked(looks, count):
    async with asyncio.timeout(5):
        while looks.count < count:
            looks.seen.clear()
            await looks.seen.wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "PACE_S", 0.01)


def test_a_start_raises_and_later_looks_try_again(caplog):
    async def check():
        looks = Looks(HostError("no"), HostError("no"), HostError("no"), Look())
        keeper = Keeper(Netlink(), looks, 60)
        with pytest.raises(HostError, match="no"):
            await keeper.start()
        with caplog.at_level(logging.WARNING):
            await keeper.follow()
            assert keeper.problems == ("no",)
            await keeper.follow()
            assert [record.getMessage() for record in caplog.records] == ["no"]
            await keeper.follow()
        assert keeper.problems == ()

    uvloop.run(check())


def test_it_looks_on_changes_and_in_turn():
    async def check():
        netlink, looks = Netlink(), Looks(Look())
        running = await begun(Keeper(netlink, looks, 60))
        await asyncio.sleep(0)
        for count in (2, 3):
            netlink.changed.set()
            await until_looked(looks, count)
        running.cancel()
        running = await begun(Keeper(Netlink(), looks, 0.01))
        await until_looked(looks, 8)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    uvloop.run(check())


def test_a_change_between_the_first_look_and_the_repairs_is_not_missed():
    """A netlink that hands out an event of its own at each call, as the real one does: only those who ask are told."""

    class Late(Netlink):
        def changes(self):
            self.changed = asyncio.Event()
            return self.changed

    async def check():
        netlink, looks = Late(), Looks(Look())
        keeper = Keeper(netlink, looks, 60)
        await keeper.start()
        netlink.changed.set()
        running = asyncio.create_task(keeper.run())
        await until_looked(looks, 2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    uvloop.run(check())


@pytest.mark.parametrize("turns", range(6))
def test_a_cancellation_beside_a_change_is_not_lost(turns):
    """However many turns of the loop lie between: a stop that is lost would be waited for until somebody kills us."""

    async def check():
        netlink = Netlink()
        running = await begun(Keeper(netlink, Looks(Look()), 60))
        for _ in range(3):
            await asyncio.sleep(0)
        netlink.changed.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait((running,), timeout=5)
        return running.cancelled()

    assert uvloop.run(check())


def test_a_problem_is_told_again_only_when_it_comes_back(caplog):
    async def check():
        looks = Looks(Look(problems=["a"]), Look(problems=["a", "b"]), Look(), Look(problems=["a"]))
        keeper = Keeper(Netlink(), looks, 60)
        for _ in range(4):
            await keeper.follow()

    with caplog.at_level(logging.WARNING):
        uvloop.run(check())
    assert [record.getMessage() for record in caplog.records] == ["a", "b", "a"]


def test_thousands_of_problems_are_told_in_a_few_lines(caplog):
    async def check():
        keeper = Keeper(Netlink(), Looks(Look(problems=[f"p{i}" for i in range(5000)])), 60)
        await keeper.follow()
        return keeper.problems

    with caplog.at_level(logging.WARNING):
        problems = uvloop.run(check())
    assert len(problems) == len(caplog.records) == PROBLEMS_SHOWN + 1
    assert problems[-1] == "and 4990 more"


def test_repairs_are_told(caplog):
    async def check():
        netlink, looks = Netlink(), Looks(Look(), Look(done=["added the route"]), Look())
        running = await begun(Keeper(netlink, looks, 0.01))
        await until_looked(looks, 3)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with caplog.at_level(logging.INFO):
        uvloop.run(check())
    assert [record.getMessage() for record in caplog.records] == ["repaired: added the route"]
