"""The subnet file, `/run/flannel/subnet.env`: how the CNI plugin learns this node's subnet and MTU.

Owns its text and a way of writing it in two steps, so that the daemon learns that it cannot be written before it
changes the machine, and a reader never finds half a file. Knows no registry and no backend.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from udpbackend.errors import ConfigError, HostError
from udpbackend.model import Prefix

RESERVED_BYTES = 4096
"""Written when preparing, so that a full disk shows then; a subnet file is far smaller."""

LINE = re.compile(
    r"""\s*(?:export\s+)?([A-Za-z_][\w.]*)\s*[=:]\s*
        (?:'([^']*)' | "((?:[^"\\]|\\.)*)" | ([^\#]*?) )
        \s*(?:\#.*)?$""",
    re.VERBOSE,
)


def render(
    network: Prefix, subnet: Prefix, mtu: int, *, ip_masq: bool, ipv6: tuple[Prefix, Prefix] | None = None
) -> str:
    """The file's text; `ipv6`: network and subnet of a node that carries it too."""
    return (
        _share("FLANNEL_", network, subnet)
        + (_share("FLANNEL_IPV6_", *ipv6) if ipv6 else "")
        + f"FLANNEL_MTU={mtu}\n"
        + f"FLANNEL_IPMASQ={'true' if ip_masq else 'false'}\n"
    )


def _share(keys: str, network: Prefix, subnet: Prefix) -> str:
    """SUBNET is the address the bridge will carry, the first after the subnet's base."""
    return f"{keys}NETWORK={network}\n{keys}SUBNET={subnet.base + 1}/{subnet.bits}\n"


def read_env(path: Path) -> dict[str, str]:
    """The variables of a subnet file, empty if there is none.

    Quotes, `export`, comments and `KEY: value` are understood as in any dotenv file; other lines are passed over.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HostError(f"cannot read the subnet file {path}: {error.strerror}") from None
    found = {}
    for line in text.splitlines():
        if match := LINE.match(line):
            key, single, double, bare = match.groups()
            found[key] = re.sub(r"\\(.)", r"\1", double) if double is not None else single or bare or ""
    return found


def remove_env(path: Path) -> None:
    """Removes a subnet file; none is as good. Raises HostError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"cannot remove the subnet file {path}: {error.strerror}") from None


def subnets_of(env: Mapping[str, str]) -> tuple[Prefix, ...]:
    """The subnets a node had, from the variables of its subnet file; a list of several counts as none."""
    found = list[Prefix]()
    for name in ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"):
        with contextlib.suppress(ConfigError):
            found.append(Prefix.parse(env.get(name, ""), mask=True))
    return tuple(found)


def networks_of(env: Mapping[str, str]) -> list[Prefix]:
    """The overlay's networks, from the variables of a subnet file; what is none is passed over."""
    found = []
    for name in ("FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"):
        for text in env.get(name, "").split(","):
            try:
                found.append(Prefix.parse(text, mask=True))
            except ConfigError:
                continue
    return found


class SubnetEnv:
    """A subnet file about to be written: `prepare`, then either `commit` or `abort`."""

    def __init__(self, path: Path, made: list[Path]) -> None:
        self._path = path
        self._made = made  # directories we created, outermost first
        self._temp: Path | None = None
        self._fd = -1

    @classmethod
    def prepare(cls, path: Path) -> Self:
        """Proves that the file can be written, without touching it. Raises HostError and leaves nothing behind."""
        self = cls(path, [])
        with self._aborting_on_error():
            if path.is_dir():
                raise IsADirectoryError(0, "it is a directory, expected a file or nothing")
            self._make_directories()
            self._fd, temp = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            self._temp = Path(temp)
            _write_all(self._fd, bytes(RESERVED_BYTES))
        return self

    def commit(self, text: str) -> None:
        """Puts the file in place with mode 0644, complete or not at all. Raises HostError."""
        data = text.encode()
        with self._aborting_on_error():
            if self._temp is None:
                raise OSError(0, "it was not prepared")
            _write_all(self._fd, data)
            os.ftruncate(self._fd, len(data))
            os.fchmod(self._fd, 0o644)  # the umask has no say: other users' programs read this file
            os.fsync(self._fd)
            self._temp.rename(self._path)
            self._temp = None
            self._made = []
            self._close()

    def abort(self) -> None:
        """Removes what `prepare` has made; after `commit`, or a second time, it does nothing."""
        self._close()
        if self._temp is not None:
            self._temp.unlink(missing_ok=True)
            self._temp = None
        while self._made:
            with contextlib.suppress(OSError):  # somebody else may have put something in it
                self._made.pop().rmdir()

    def _make_directories(self) -> None:
        parent = self._path.parent
        missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir()
            self._made.append(folder)
            folder.chmod(0o755)  # whatever the umask is

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextlib.contextmanager
    def _aborting_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.abort()
            raise HostError(f"cannot write the subnet file {self._path}: {error.strerror}") from None


def _write_all(fd: int, data: bytes) -> None:
    """Writes at the start of the file."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], done)
