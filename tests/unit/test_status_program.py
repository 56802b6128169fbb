"""The program `udp-backend status` against real servers: exit status, where it asks, watching."""

import asyncio
import json
import logging
import os
import socket
import sys
from contextlib import asynccontextmanager

import jsonschema
import pytest
import uvloop
from observed import peer
from served import Daemon, serving

from udpbackend.commands import status
from udpbackend.commands.status_text import PEERS_SHOWN
from udpbackend.observe.reference import SCHEMA


async def command(path, *options):
    """Runs the real program: its exit status, stdout and stderr."""
    argv = ("-m", "udpbackend", "status", f"--status-socket={path}", *options)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *argv, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def test_no_more_peers_are_asked_for_than_are_shown(path, monkeypatch):
    """Of thousands a plain status shows twenty, and an operator may well look at it every two seconds."""
    peers = [peer(f"192.0.{i // 250}.{i % 250 + 1}", silent_s=None if i == 777 else 1.0) for i in range(2000)]

    async def check():
        async with serving(path, Daemon(peers=peers, leases=())):
            assert len(await asyncio.to_thread(status.fetch, path, peers=PEERS_SHOWN)) < 30_000
            code, out, err = await command(path)
            assert (code, err) == (0, "")
            assert "ready, 1999 of 2000 peers seen" in out
            assert "... and 1980 more, -o wide shows all" in out
            assert out[out.index("PEER ") :].splitlines()[1].split()[1] == "192.0.3.28"
            assert (await command(path, "-o", "wide"))[1].count("\n") > 2000

    uvloop.run(check())


@asynccontextmanager
async def ending(process):
    """A program that a failed test leaves running would keep the event loop from ending."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def path(tmp_path):
    (tmp_path / "run").mkdir(exist_ok=True)
    return tmp_path / "run" / "subnet.sock"


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
        path.parent.mkdir(exist_ok=True)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        assert (await command(path))[0] == 3

    uvloop.run(check())


@pytest.mark.parametrize("options", [["--frobnicate"], ["-o", "xml"], ["-w", "0"], ["-w", "soon"], ["here"]])
def test_wrong_usage_is_status_2(path, options):
    code, out, err = uvloop.run(command(path, *options))
    assert (code, out) == (2, "")
    assert err.startswith("udp-backend: ")
    assert err.endswith(": see udp-backend status --help\n")
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
        async with asyncio.timeout(30), ending(process):
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
            async with ending(process):
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
