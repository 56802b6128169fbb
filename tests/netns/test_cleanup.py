"""`udp-backend cleanup` against what a daemon leaves behind, each test in a network namespace of its own."""

import asyncio
import os
import socket
import subprocess
import sys
from ipaddress import IPv4Address

import pytest
from inside import in_namespace, ip

from udpbackend.commands import cleanup
from udpbackend.dataplane.tun import open_tun
from udpbackend.errors import HostError, UsageError
from udpbackend.host.flannel0 import OverlayLink
from udpbackend.host.netlink import Netlink
from udpbackend.host.overlay_plan import Overlay
from udpbackend.model import Prefix

OVERLAY = Overlay(IPv4Address("10.5.3.0"), Prefix.parse("10.5.0.0/16"), 1472)


def leave(folder, *, listening=False):
    """A device with its routes, a subnet file and a socket; gives the queue and the socket, still open."""

    async def configure():
        async with Netlink() as netlink:
            await OverlayLink(netlink).configure(OVERLAY)

    queue = open_tun("flannel0")
    asyncio.run(configure())
    queue.persist()
    (folder / "subnet.env").write_text("FLANNEL_MTU=1472\n")
    status = socket.socket(socket.AF_UNIX)
    status.bind(os.fspath(folder / "subnet.sock"))
    if listening:
        status.listen()
    return queue, status


def run(folder):
    return cleanup.run(["--subnet-file", str(folder / "subnet.env")])


@in_namespace
def test_all_that_is_left_is_removed_and_named(tmp_path, capsys):
    for left in leave(tmp_path):
        left.close()
    assert run(tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [
        "removed the device flannel0 with its address and routes",
        f"removed {tmp_path}/subnet.env",
        f"removed {tmp_path}/subnet.sock",
    ]
    assert ip("route") == ""
    assert not list(tmp_path.iterdir())
    assert run(tmp_path) == 0
    assert capsys.readouterr().out == "nothing to clean up\n"


@in_namespace
def test_a_device_in_use_is_refused(tmp_path):
    queue, status = leave(tmp_path)
    with queue, status, pytest.raises(HostError, match=r"flannel0 is in use: a daemon holds 1 queue\(s\)"):
        run(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert ip("route").strip() == "10.5.0.0/16 dev flannel0"


@in_namespace
def test_a_daemon_that_answers_is_refused(tmp_path):
    queue, status = leave(tmp_path, listening=True)
    queue.close()
    with status, pytest.raises(HostError, match="a daemon is running: it answers on"):
        run(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@in_namespace
def test_another_programs_device_and_subnet_file_are_left(tmp_path, capsys):
    ip("tuntap", "add", "flannel0", "mode", "tun")
    (tmp_path / "subnet.env").write_text("FLANNEL_MTU=1472\n")
    assert run(tmp_path) == 0
    found = capsys.readouterr()
    assert found.out == "nothing to clean up\n"
    assert "left alone: flannel0 and" in found.err
    assert "made by another program" in found.err
    assert (tmp_path / "subnet.env").exists()
    assert ip("-j", "link", "show", "flannel0")


@in_namespace
def test_a_file_that_is_no_socket_is_left(tmp_path):
    (tmp_path / "subnet.sock").write_text("not ours\n")
    assert run(tmp_path) == 0
    assert (tmp_path / "subnet.sock").exists()


@pytest.mark.parametrize("argv", [["--subnet"], ["extra"], ["--subnet-file"], ["--subnet-file", "/"]])
def test_usage_errors(argv):
    with pytest.raises(UsageError) as caught:
        cleanup.run(argv)
    assert caught.value.status == 2


def test_the_variables_of_the_daemon_are_read(monkeypatch):
    monkeypatch.setenv("FLANNELD_SUBNET_FILE", "/run/a/b.env")
    assert str(cleanup._read([]).status_socket) == "/run/a/b.sock"
    assert str(cleanup._read(["-subnet-file=/c/d.env"]).subnet_file) == "/c/d.env"


def test_it_loads_no_part_of_the_daemon():
    code = (
        "import sys, udpbackend.commands.cleanup\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'uvloop', 'aiohttp', 'prometheus_client'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
