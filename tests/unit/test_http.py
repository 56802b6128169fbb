"""The servers as a client meets them: real sockets, and uvloop as in the daemon."""

import asyncio
import json
import logging
import socket
import stat
import time
import tracemalloc

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


def crowd(size):
    """A daemon with so many peers, every tenth of which was never heard of."""
    address = [f"192.{i // 65536}.{i // 256 % 256}.{i % 256}" for i in range(size)]
    return Daemon(
        peers=[peer(a, silent_s=1.5 if i % 10 else None) for i, a in enumerate(address)],
        leases=[lease(f"11.{i >> 8}.{i & 255}.0/24", a) for i, a in enumerate(address)],
    )


def test_a_large_document_is_the_same_in_pieces(path, monkeypatch):
    source = crowd(MANY)

    async def check():
        async with serving(path, source):
            code, kind, pieces = await over_unix(path, "/status")
            assert (code, kind, source.undisturbed_times) == (200, "application/json", 1)
            monkeypatch.setattr(http, "PIECE", MANY + 1)
            assert json.loads(pieces) == json.loads((await over_unix(path, "/status"))[2])
            jsonschema.validate(json.loads(pieces), json.loads(SCHEMA.read_text()))
            assert source.undisturbed_times == 1

    uvloop.run(check())


def test_a_large_document_is_never_in_memory_as_a_whole(path):
    async def check():
        source = crowd(20_000)
        made = await source.facts()
        source.facts = lambda: asyncio.sleep(0, made)
        async with serving(path, source):
            reader, writer = await asyncio.open_unix_connection(str(path))
            tracemalloc.start()
            try:
                writer.write(b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                size = 0
                while piece := await reader.read(1 << 16):
                    size += len(piece)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
                writer.close()
        assert size > 20_000 * 150
        assert peak < 0.75 * size  # most of it the made-up peers, which are many objects where real ones are rows

    uvloop.run(check())


def test_some_peers_can_be_asked_for_and_the_silent_come_first(path):
    async def check():
        async with serving(path, crowd(MANY)):
            for most in (0, 3, MANY // 10 + 5, MANY + 7):
                document = json.loads((await over_unix(path, f"/status?peers={most}"))[2])
                assert document["peers_total"] == MANY
                found = document["peers"]
                assert len(found) == len({it["public_ip"] for it in found}) == min(most, MANY)
                silent = [it["silent_s"] is None for it in found]
                assert most > MANY or silent == sorted(silent, reverse=True)
                assert sum(silent) == min(most, MANY // 10)
                assert all(it["subnets"] for it in found)
            for wrong in ("-1", "x", "", "1" * 30):
                code, _, text = await over_unix(path, f"/status?peers={wrong}")
                assert (code, text) == (400, f"peers={wrong!r}: expected a whole number\n")

    uvloop.run(check())


def test_thousands_of_peers_do_not_hold_up_the_loop(path):
    source = crowd(MANY)

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
