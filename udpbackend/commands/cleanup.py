"""`udp-backend cleanup`: removes what a daemon has left on this host.

Owns the order and the words; each part knows its own leftovers. Must not touch what a running daemon or another program
uses, and does not load the daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from udpbackend.errors import HostError, UsageError
from udpbackend.host.flannel0 import OverlayLink, Presence
from udpbackend.host.netlink import Netlink
from udpbackend.settings import Given, Settings

CONNECT_S = 1.0
FLAGS = {"subnet-file": "subnet_file", "status-socket": "status_socket"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"cleanup: {message}")


def run(argv: Sequence[str]) -> int:
    """Cleans up and prints a line for each thing removed."""
    settings = _read(argv)
    removed = asyncio.run(_clean(settings))
    print("\n".join(removed) or "nothing to clean up")
    return 0


def _read(argv: Sequence[str]) -> Settings:
    """The two paths, from the flags or from the variables that the daemon reads."""
    parser = _Parser(
        prog="udp-backend cleanup",
        description="Removes flannel0 with its address and routes, the subnet file and the status socket of a daemon "
        "that has ended. What is in use, or another program's, is left alone.",
        allow_abbrev=False,
    )
    parser.add_argument("-subnet-file", "--subnet-file", metavar="FILE", help="default /run/flannel/subnet.env")
    parser.add_argument("-status-socket", "--status-socket", metavar="FILE", help="default: the same, ending in .sock")
    options = vars(parser.parse_args(argv))
    given = {}
    for flag, field in FLAGS.items():
        variable = "FLANNELD_" + field.upper()
        if options[field] is not None:
            given[field] = Given(f"--{flag}", (options[field],))
        elif os.environ.get(variable):
            given[field] = Given(variable, (os.environ[variable],))
    return Settings.read(given)


async def _clean(settings: Settings) -> list[str]:
    removed = []
    if _listening(settings.status_socket):
        raise HostError(f"a daemon is running: it answers on {settings.status_socket}; stop it first")
    async with Netlink() as netlink:
        link = OverlayLink(netlink)
        state = await link.inspect()
        if state.presence is Presence.IN_USE:
            raise HostError(f"{link.name} is in use: a daemon holds {state.queues} queue(s) of it; stop it first")
        if state.presence is Presence.OURS and await link.remove():
            removed.append(f"removed the device {link.name} with its address and routes")
    if state.presence is Presence.FOREIGN:
        # The subnet file is then most likely the other program's too.
        sys.stderr.write(f"left alone: {link.name} and {settings.subnet_file}: {state.why}\n")
    elif _unlink(settings.subnet_file):
        removed.append(f"removed {settings.subnet_file}")
    if _is_socket(settings.status_socket) and _unlink(settings.status_socket):
        removed.append(f"removed {settings.status_socket}")
    return removed


def _listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            raise HostError(f"cannot tell whether a daemon answers on {path}: {error.strerror or error}") from error
    return True


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HostError(f"cannot remove {path}: {error.strerror}") from error
    return True
