"""The congestion control of the namespaces: cubic where it may be had, and the initial namespace as it was afterwards.

Owns the one thing a bench changes outside its own namespaces: a namespace may choose only what the initial one's
`net.ipv4.tcp_allowed_congestion_control` lists, so cubic is added there for as long as namespaces are made, and taken
out again. A default of bbr would pace every stream, and iperf3's own `-C` leaves that pacing on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.lab.cleanup import undisturbed
from bench.lab.netns import Namespace

ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
FALLBACK = "reno"
"""Every kernel has it and allows it to everybody."""
CHOICES = ("cubic", "reno", "bbr")


@contextmanager
def permitted(wanted: str, *, allowed: Path = ALLOWED, available: Path = AVAILABLE) -> Iterator[str]:
    """While inside, a namespace may choose what is yielded: `wanted`, or FALLBACK where that cannot be had."""
    before = allowed.read_text().split()
    if wanted in before:
        yield wanted
        return
    if wanted not in available.read_text().split() or not _set(allowed, [*before, wanted]):
        yield FALLBACK
        return
    try:
        yield wanted
    finally:
        with undisturbed():
            _set(allowed, [name for name in allowed.read_text().split() if name != wanted])


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
