"""The congestion control of the namespaces: cubic where it may be had, and the initial namespace as it was afterwards.

Owns the one thing a bench changes outside its own namespaces: a namespace may choose only what the initial one's
`net.ipv4.tcp_allowed_congestion_control` lists, so cubic is added there for as long as namespaces are made, and taken
out again by the last of the benches that run. A default of bbr would pace every stream, and iperf3's own `-C` leaves
that pacing on.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from bench.lab.cleanup import undisturbed
from bench.lab.netns import Namespace

ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
USERS = Path("/run/udpbackend-bench.congestion")
"""Locked (shared) by every bench that needs what was added, and names what is to be taken out again."""
FALLBACK = "reno"
"""Every kernel has it and allows it to everybody."""
CHOICES = ("cubic", "reno", "bbr")


@contextmanager
def permitted(
    wanted: str, *, allowed: Path = ALLOWED, available: Path = AVAILABLE, users: Path = USERS
) -> Iterator[str]:
    """While inside, a namespace may choose what is yielded: `wanted`, or FALLBACK where that cannot be had.

    Several benches may be inside at once. What one added stays until the last is out; what one that was killed had
    added goes with the next.
    """
    with users.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        before = allowed.read_text().split()
        got = wanted
        if wanted not in before:
            if wanted in available.read_text().split() and _set(allowed, [*before, wanted]):
                print(wanted, file=file, flush=True)
            else:
                got = FALLBACK
        try:
            yield got
        finally:
            with undisturbed():
                _leave(file, allowed)


def _leave(file: TextIO, allowed: Path) -> None:
    """Take out what was added, unless somebody else is inside."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    file.seek(0)
    added = file.read().split()
    if added and _set(allowed, [name for name in allowed.read_text().split() if name not in added]):
        file.truncate(0)


def in_force(namespace: Namespace) -> str:
    """What a new connection in a namespace gets, read back."""
    key = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    return namespace.call(lambda: key.read_text().strip())


def _set(allowed: Path, names: list[str]) -> bool:
    try:
        allowed.write_text(" ".join(names) + "\n")
    except OSError:
        return False
    return True
