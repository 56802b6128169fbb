"""The servers as a client meets them: real sockets, and uvloop as in the daemon."""

import asyncio
import json
import logging
import socket
import stat
import time

import aiohttp
import jsonschema
import pytest
import uvloop
from free_ports import free_ports
from observed import lease, peer
from served import Daemon, serving

from udpbackend.errors import HostError
from udpbackend.observe import http
from udpbackend.observe.http import bind
from udpbackend.observe.metrics import CONTENT_TYPE
from udpbackend.observe.reference import SCHEMA

MANY = 2000


async def get(url, path=None):
    connector = aiohttp.UnixConnector(str(path)) if path else aiohttp.TCPConnector()
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        return response.status, response.headers["Content-Type"], await response.text()


async def over_unix(path, resource):
    return await get(f"http://localhost{resource}", path)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "subnet.sock"


def test_the_unix_socket_is_roots_and_serves_everything(path):
    async def check():
        async with serving(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            code, kind, text = await over_unix(path, "/status")
            assert (code, kind) == (200, "application/json")
            jsonschema.validate(json.loads(text), json.loads(SCHEMA.read_text()))
            code, kind, text = await over_unix(path, "/metrics")
            assert (code, kind) == (200, CONTENT_TYPE)
            assert "udpbackend_ready 1.0" in text
            assert (await over_unix(path, "/healthz"))[::2] == (200, "udp-backend is running\n")
            assert (await over_unix(path, "/readyz"))[::2] == (200, "udp-backend is ready, registry view 3 s old\n")
        assert not path.exists()

    uvloop.run(check())


def test_the_port_serves_health_and_metrics_but_no_status(path):
    async def check():
        [port] = free_ports(1)
        async with serving(path, port=port):
            base = f"http://127.0.0.1:{port}"
            assert (await get(f"{base}/healthz"))[::2] == (200, "udp-backend is running\n")
            assert (await get(f"{base}/readyz"))[0] == 200
            assert (await get(f"{base}/metrics"))[0] == 200
            assert (await get(f"{base}/status"))[0] == 404
        with pytest.raises(aiohttp.ClientConnectorError):
            await get(f"{base}/healthz")

    uvloop.run(check())


def test_a_start_is_healthy_but_not_ready_and_says_why(path):
    async def check():
        async with serving(path, Daemon(waiting_for="a lease")):
            assert (await over_unix(path, "/healthz"))[0] == 200
            assert (await over_unix(path, "/readyz"))[::2] == (
                503,
                "udp-backend is not ready yet: waiting for a lease\n",
            )

    uvloop.run(check())


def test_a_degraded_daemon_stays_ready(path):
    async def check():
        async with serving(path, Daemon(problems=("etcd is away",))):
            assert (await over_unix(path, "/readyz"))[0] == 200

    uvloop.run(check())


@pytest.mark.parametrize("error", [HostError("no"), ValueError("no"), OSError(5, "no"), KeyError("no")])
def test_a_handler_that_fails_answers_500_and_the_next_one_works(path, caplog, error):
    async def check():
        source = Daemon()
        async with serving(path, source):
            source.error = error
            assert (await over_unix(path, "/status"))[0] == 500
            assert (await over_unix(path, "/metrics"))[0] == 500
            source.error = None
            assert (await over_unix(path, "/status"))[0] == 200

    with caplog.at_level(logging.CRITICAL):
        uvloop.run(check())


def test_facts_that_do_not_come_are_given_up(path, monkeypatch):
    monkeypatch.setattr(http, "DEADLINE_S", 0.1)

    async def check():
        source = Daemon()
        async with serving(path, source):
            source.wait_s = 60
            assert (await over_unix(path, "/status"))[0] == 504
            assert (await over_unix(path, "/healthz"))[0] == 200

    uvloop.run(check())


def test_a_request_under_way_does_not_hold_up_the_stop(path, monkeypatch):
    monkeypatch.setattr(http, "STOP_S", 0.2)

    async def check():
        source = Daemon()
        source.wait_s = 60
        async with serving(path, source):
            asked = asyncio.create_task(over_unix(path, "/status"))
            await source.asked.wait()
            began = time.monotonic()
        assert time.monotonic() - began < 10
        assert not path.exists()
        with pytest.raises(aiohttp.ClientError):
            await asked

    uvloop.run(check())


def test_thousands_of_peers_do_not_hold_up_the_loop(path):
    address = [f"192.{i // 65536}.{i // 256 % 256}.{i % 256}" for i in range(MANY)]
    source = Daemon(
        peers=[peer(a) for a in address],
        leases=[lease(f"10.{i >> 8}.{i & 255}.0/24", a) for i, a in enumerate(address)],
    )

    async def check():
        async with serving(path, source):
            code, _, text = await over_unix(path, "/status")
            assert (code, len(json.loads(text)["peers"])) == (200, MANY)
            assert (await over_unix(path, "/metrics"))[0] == 200

    uvloop.run(check())


def test_a_socket_left_by_a_dead_daemon_is_replaced(path):
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def check():
        async with serving(path):
            assert (await over_unix(path, "/healthz"))[0] == 200

    uvloop.run(check())


def test_a_living_daemon_is_left_alone_and_named(path):
    async def check():
        async with serving(path):
            with pytest.raises(HostError, match=f"another udp-backend answers on {path}"):
                async with serving(path):
                    pass
            assert (await over_unix(path, "/healthz"))[0] == 200

    uvloop.run(check())


def test_a_living_daemon_with_a_full_queue_is_left_alone(path):
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(HostError, match="another udp-backend answers"):
            bind(path)


def test_a_file_that_is_no_socket_is_left_alone(path):
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    with pytest.raises(HostError, match="no socket"):
        bind(path)
    assert path.read_text() == "precious"


def test_a_path_that_cannot_be_bound_is_named(tmp_path):
    long = tmp_path / ("x" * 120)
    with pytest.raises(HostError, match=r"cannot make the status socket .*xxx: .+"):
        bind(long)


def test_a_port_that_is_taken_is_named_and_nothing_stays(path):
    async def check():
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with pytest.raises(HostError, match=f"cannot listen on 127.0.0.1 port {port} .*: Address already in use"):
                async with serving(path, port=port):
                    pass
        assert not path.exists()

    uvloop.run(check())


def test_a_successors_socket_survives_our_stop(path):
    async def check():
        async with serving(path):
            path.unlink()
            bind(path).close()
        assert path.exists()

    uvloop.run(check())
