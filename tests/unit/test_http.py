"""The servers as a client meets them: real sockets, uvloop, and the `status` command against them."""

import asyncio
import json
import logging
import os
import socket
import stat
import sys
import time
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import aiohttp
import jsonschema
import pytest
import uvloop
from observed import facts, lease, peer

from udpbackend.commands import status
from udpbackend.errors import HostError
from udpbackend.observe import http
from udpbackend.observe.http import Server, bind
from udpbackend.observe.metrics import CONTENT_TYPE, Metrics
from udpbackend.observe.reference import SCHEMA

MANY = 2000


class Daemon:
    """Answers with what a test says, which may be an exception, after a while."""

    def __init__(self, **changes):
        self.changes = changes
        self.error = None
        self.wait_s = 0.0

    def waiting_for(self):
        return self.changes.get("waiting_for")

    async def facts(self):
        await asyncio.sleep(self.wait_s)
        if self.error is not None:
            raise self.error
        return facts(**self.changes)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def serving(path, source=None, port=0):
    server = Server(
        source or Daemon(), Metrics(), socket_path=path, healthz_ip=IPv4Address("127.0.0.1"), healthz_port=port
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def get(url, path=None):
    connector = aiohttp.UnixConnector(str(path)) if path else aiohttp.TCPConnector()
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        return response.status, response.headers["Content-Type"], await response.text()


async def over_unix(path, resource):
    return await get(f"http://localhost{resource}", path)


async def command(path, *options):
    """Runs the real program: its exit status, stdout and stderr."""
    argv = ("-m", "udpbackend", "status", f"--status-socket={path}", *options)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *argv, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def path(tmp_path):
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
            assert (await over_unix(path, "/readyz"))[::2] == (200, "udp-backend is ready\n")
        assert not path.exists()

    uvloop.run(check())


def test_the_port_serves_health_and_metrics_but_no_status(path):
    async def check():
        port = free_port()
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
            await asyncio.sleep(0.1)
            began = time.monotonic()
        assert time.monotonic() - began < 2
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
    path.parent.mkdir()
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
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(HostError, match="another udp-backend answers"):
            bind(path)


def test_a_file_that_is_no_socket_is_left_alone(path):
    path.parent.mkdir()
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


@pytest.mark.parametrize(
    ("changes", "code", "first"),
    [
        ({}, 0, "ready, 1 of 2 peers seen, registry view 3 s old"),
        ({"problems": ("flannel0 is gone",)}, 1, "degraded, flannel0 is gone, "),
        ({"waiting_for": "a lease"}, 1, "starting, waiting for a lease"),
    ],
)
def test_the_command_gives_the_verdict_first_and_as_its_exit_status(path, changes, code, first):
    async def check():
        async with serving(path, Daemon(**changes)):
            found, out, err = await command(path)
        assert (found, err) == (code, "")
        assert out.startswith(first)
        assert "\x1b" not in out

    uvloop.run(check())


def test_the_command_without_a_daemon_names_the_socket(path):
    async def check():
        assert await command(path) == (3, "", f"udp-backend: not running: nobody listens on {path}\n")
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        assert (await command(path))[0] == 3

    uvloop.run(check())


@pytest.mark.parametrize("options", [["--frobnicate"], ["-o", "xml"], ["-w", "0"], ["-w", "soon"], ["here"]])
def test_wrong_usage_is_status_2(path, options):
    code, out, err = uvloop.run(command(path, *options))
    assert (code, out) == (2, "")
    assert err.startswith("udp-backend: ")
    assert err.count("\n") == 1


def test_json_is_the_document_and_keeps_the_exit_status(path):
    async def check():
        async with serving(path, Daemon(problems=("x",))):
            code, out, _ = await command(path, "-o", "json")
        assert code == 1
        jsonschema.validate(json.loads(out), json.loads(SCHEMA.read_text()))

    uvloop.run(check())


def test_the_socket_is_found_from_the_subnet_file(path, capsys, monkeypatch):
    monkeypatch.delenv("FLANNELD_STATUS_SOCKET", raising=False)
    monkeypatch.setenv("FLANNELD_SUBNET_FILE", str(path.with_name("other.env")))

    async def check():
        async with serving(path):
            assert await asyncio.to_thread(status.run, [f"--subnet-file={path.with_suffix('.env')}"]) == 0
            with pytest.raises(status.NoAnswerError, match=r"other\.sock"):
                await asyncio.to_thread(status.run, [])

    uvloop.run(check())
    assert capsys.readouterr().out.startswith("ready, ")


def test_a_daemon_that_cannot_answer_is_told_from_none(path, caplog):
    async def check():
        source = Daemon()
        async with serving(path, source):
            source.error = ValueError("x")
            with pytest.raises(status.NoAnswerError, match="cannot answer: 500"):
                await asyncio.to_thread(status.run, [f"--status-socket={path}"])

    with caplog.at_level(logging.CRITICAL):
        uvloop.run(check())


def test_watch_prints_a_block_each_interval_and_survives_a_restart(path):
    async def check():
        pipe = asyncio.subprocess.PIPE
        argv = ("-m", "udpbackend", "status", f"--status-socket={path}", "-w", "0.1")
        process = await asyncio.create_subprocess_exec(sys.executable, *argv, stdout=pipe, stderr=pipe)
        async with asyncio.timeout(30):
            assert b"not running" in await process.stdout.readline()
            async with serving(path):
                while b"ready, 1 of 2" not in await process.stdout.readline():
                    pass
                while b"ready, 1 of 2" not in await process.stdout.readline():
                    pass
            while b"not running" not in await process.stdout.readline():
                pass
            process.send_signal(2)
            _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")

    uvloop.run(check())


def test_watch_redraws_a_terminal_in_place_and_leaves_it_as_it_was(path):
    async def check():
        ours, theirs = os.openpty()
        argv = ("-m", "udpbackend", "status", f"--status-socket={path}", "-w", "0.1", "--color=never")
        async with asyncio.timeout(30), serving(path):
            process = await asyncio.create_subprocess_exec(sys.executable, *argv, stdout=theirs)
            shown = b""
            while shown.count(status.REDRAW.encode()) < 3:
                shown += await asyncio.to_thread(os.read, ours, 4096)
            process.send_signal(2)
            while not shown.endswith(b"\r\n") or status.WRAP_ON.encode() not in shown:
                shown += await asyncio.to_thread(os.read, ours, 4096)
            assert await process.wait() == 0
        os.close(ours)
        os.close(theirs)
        assert shown.startswith((status.WRAP_OFF + status.CLEAR_ALL + status.REDRAW).encode() + b"ready, 1 of 2")
        assert shown.count(status.CLEAR_ALL.encode()) == 1

    uvloop.run(check())


def test_the_command_loads_nothing_heavy():
    heavy = ("aiohttp", "uvloop", "pyroute2", "prometheus_client", "asyncio", "cffi", "udpbackend._native")
    code = f"import sys, udpbackend.commands.status; print([m for m in {heavy!r} if m in sys.modules])"

    async def check():
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=pipe, env={**os.environ})
        out, _ = await process.communicate()
        assert out == b"[]\n"

    uvloop.run(check())
