"""What the operator chose, as one frozen value: every setting with its type, its unit and its default.

Owns the way from a written text to a checked value, and the sentence that says what was expected. It does not know
where a text was written: flags.py hands over each text with the name of its place, and an error repeats that name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

from udpbackend.errors import UsageError

SourceCheck = Literal["subnet", "peer", "off"]
SOURCE_CHECKS = ("subnet", "peer", "off")

ANY_ADDRESS = IPv4Address(0)

WORKERS_MAX = 16
"""As many queues as the dataplane has."""

SOURCE_PORTS_MAX = 15
"""As many sockets as a queue takes beside its own."""

SOCKET_PATH_BYTES = 107
"""The longest name of a UNIX socket: sun_path without its final zero byte."""


class Given(NamedTuple):
    """The texts given for one setting and the place they come from, `--iface` for example."""

    origin: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the daemon is told at its start; nothing in it changes while it runs."""

    iface: tuple[str, ...] = ()
    """Interfaces to meet the peers on, each a name or an IP address; the first that exists is used."""

    iface_regex: tuple[str, ...] = ()
    """Regular expressions, tried against addresses and then names where no `iface` matched."""

    iface_can_reach: IPv4Address | None = None
    """Use the interface and source address of the route to this address."""

    public_ip: IPv4Address | None = None
    """The address peers send to. None: the address of the chosen interface."""

    subnet_file: Path = Path("/run/flannel/subnet.env")
    """Written for the CNI plugin once the network is up."""

    healthz_ip: IPv4Address | IPv6Address = ANY_ADDRESS
    """The address the health and metrics server listens on."""

    healthz_port: int = 0
    """Its TCP port, 0 to 65535; 0 means there is no server."""

    verbosity: int = 0
    """How much is logged: 0 what happens, 1 and above also why, 4 and above also what libraries say."""

    static_subnets: Path | None = None
    """The JSON file that says which node owns which subnet."""

    node_name: str | None = None
    """This host's name in the registry. None: it is found by its public address."""

    source_check: SourceCheck = "subnet"
    """What a received packet must show: `subnet` a peer's outer address and an inner one of its subnet, `peer` only the
    outer address, `off` nothing."""

    workers: int = 0
    """Threads that turn a queue each, 0 to 16; with 0 the event loop turns the only queue."""

    source_ports: int = 0
    """Further UDP ports to send from, 0 to 15, so that the receiver's card and kernel can spread flows."""

    status_socket: Path = Path()
    """Where `status` asks the daemon. Left empty: the subnet file's name, ending in .sock."""

    def __post_init__(self) -> None:
        """Derives the status socket from the subnet file."""
        if self.status_socket == Path():
            object.__setattr__(self, "status_socket", self.subnet_file.with_suffix(".sock"))
        if len(os.fsencode(self.status_socket)) > SOCKET_PATH_BYTES:
            raise UsageError(
                f"--status-socket: {str(self.status_socket)!r} is too long for a UNIX socket: "
                f"expected at most {SOCKET_PATH_BYTES} bytes"
            )

    @classmethod
    def read(cls, given: Mapping[str, Given]) -> Self:
        """Checks the texts given for each field; an empty one counts as none. Raises UsageError naming the place."""
        values: dict[str, Any] = {}
        for field, item in given.items():
            texts = tuple(text for text in item.texts if text)
            if field in REPEATABLE:
                values[field] = tuple(_value(field, text, item.origin) for text in texts)
            elif item.texts[-1]:
                values[field] = _value(field, item.texts[-1], item.origin)
        return cls(**values)


def _value(field: str, text: str, origin: str) -> Any:
    try:
        return READERS[field](text)
    except ValueError as error:
        raise UsageError(f"{origin}: invalid value {text!r}: {error}") from None


def _ipv4(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise ValueError("expected an IPv4 address, like 192.0.2.7") from None


def _ip(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        raise ValueError("expected an IP address, like 127.0.0.1") from None


def _whole(text: str, highest: int, expected: str) -> int:
    if not re.fullmatch(r"\+?[0-9]{1,10}", text) or int(text) > highest:
        raise ValueError(expected)
    return int(text)


def _port(text: str) -> int:
    return _whole(text, 65535, "expected a port number from 0 (off) to 65535")


def _level(text: str) -> int:
    return _whole(text, 2**31 - 1, "expected a number from 0 upwards")


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"expected a regular expression: {error}") from None
    return text


def _path(text: str) -> Path:
    if "\0" in text or not Path(text).name:
        raise ValueError("expected the path of a file")
    return Path(text)


def _workers(text: str) -> int:
    if text == "auto":
        return auto_workers(len(os.sched_getaffinity(0)))
    return _whole(text, WORKERS_MAX, f"expected auto or a number from 0 to {WORKERS_MAX}")


def _source_ports(text: str) -> int:
    return _whole(text, SOURCE_PORTS_MAX, f"expected a number from 0 to {SOURCE_PORTS_MAX}")


def auto_workers(cores: int) -> int:
    """What `--workers auto` means on a host of so many cores.

    Under four cores a thread of its own takes turns with the senders and receivers and costs more than it brings
    (measured on two); from four on one core in four is given to the tunnel, which leaves the others to those it serves.
    """
    return min(cores // 4, WORKERS_MAX)


def _source_check(text: str) -> SourceCheck:
    if text not in SOURCE_CHECKS:
        raise ValueError("expected subnet, peer or off")
    return cast("SourceCheck", text)


REPEATABLE = frozenset({"iface", "iface_regex"})
"""Fields that hold every text given, in order; of any other field the last text counts."""

READERS: dict[str, Callable[[str], Any]] = {
    "iface": str,
    "iface_regex": _regex,
    "iface_can_reach": _ipv4,
    "public_ip": _ipv4,
    "subnet_file": _path,
    "healthz_ip": _ip,
    "healthz_port": _port,
    "verbosity": _level,
    "static_subnets": _path,
    "node_name": str,
    "source_check": _source_check,
    "workers": _workers,
    "source_ports": _source_ports,
    "status_socket": _path,
}
