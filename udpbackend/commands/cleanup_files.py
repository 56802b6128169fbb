"""Files that a daemon has left: the subnet file, what a crash has left of writing it, the status socket.

Owns their rules. A subnet file is in flannel's form, whoever has written it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from udpbackend.errors import HostError
from udpbackend.host.leftovers_item import Leftover
from udpbackend.settings import Settings


async def files(settings: Settings) -> list[Leftover]:
    """Those that are there. Raises HostError where a folder cannot be read."""
    return list(_files(settings))


def unfinished_name(name: str, of: str) -> bool:
    """Whether a file of this name is a subnet file `of` being written: Python's tempfile, or Go's of flanneld."""
    return re.fullmatch(rf"\.{re.escape(of)}(?:\.[a-z0-9_]{{8}}|[0-9]{{4,}})", name) is not None


def _files(settings: Settings) -> Iterator[Leftover]:
    env, status = settings.subnet_file, settings.status_socket
    if _is_socket(status):
        yield Leftover(
            (str(status),), "status socket of a daemon that has ended", partial(_remove, status), shared=False
        )
    for path in _unfinished(env):
        yield Leftover((str(path),), "a crash kept this subnet file from being finished", partial(_remove, path))
    if os.path.lexists(env):
        yield Leftover(
            (str(env),), "subnet file, written by a daemon for the CNI plugin", partial(_remove, env), clue=True
        )


def _unfinished(path: Path) -> list[Path]:
    try:
        found = [it for it in path.parent.iterdir() if unfinished_name(it.name, path.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"cannot look into {path.parent}: {error.strerror}") from None
    return sorted(it for it in found if it.is_file() and not it.is_symlink())


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False


async def _remove(path: Path) -> None:
    _unlink(path)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"cannot remove {path}: {error.strerror}") from error
