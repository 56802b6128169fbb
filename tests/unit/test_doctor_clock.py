"""The clock of the registry against ours: a server whose answers bear another time."""

import time
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from aiohttp import web
from doctored_facts import doctor_facts, report
from observed import SYNCED

from udpbackend.doctor.checks import clock
from udpbackend.findings.finding import NotChecked
from udpbackend.observe.facts import RegistryView


@asynccontextmanager
async def server(ahead_s, status=200):
    """Its clock is ahead of ours."""

    async def answer(request):
        assert request.path == "/version"
        return web.Response(status=status, headers={"Date": formatdate(time.time() + ahead_s, usegmt=True)})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


def etcd(source):
    view = RegistryView(kind="etcd", source=source, synced_at=SYNCED)
    return doctor_facts(report=report(registry=view))


@pytest.mark.parametrize(("ahead_s", "says"), [(3600, "behind"), (-90, "ahead of")])
@pytest.mark.parametrize("status", [200, 401])
async def test_a_clock_that_is_wrong(ahead_s, says, status):
    async with server(ahead_s, status) as url:
        (finding,) = await clock.look(etcd(f"{url},http://192.0.2.1:2379"))
    assert finding.severity == "risk"
    seconds, words = finding.evidence.removeprefix("it is ").split(" s ")
    assert abs(int(seconds) - abs(ahead_s)) <= 3
    assert words == f"{says} that of {url}"


@pytest.mark.parametrize("ahead_s", [0, 5, -5])
async def test_a_clock_that_is_right(ahead_s):
    async with server(ahead_s) as url:
        assert await clock.look(etcd(url)) == []


async def test_where_there_is_nothing_to_compare_with(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert await clock.look(doctor_facts(report=report())) == [
        NotChecked("the registry is a file: nothing here depends on the clock")
    ]
    assert await clock.look(doctor_facts()) == [NotChecked("no daemon answers that says where the registry is")]
    (gap,) = await clock.look(etcd("http://127.0.0.1:1"))
    assert gap.why.startswith("http://127.0.0.1:1 cannot be asked for the time: ")
