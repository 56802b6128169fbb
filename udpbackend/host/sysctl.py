"""Values below /proc/sys/net, of the network namespace we are in. Reads only."""

from __future__ import annotations

from pathlib import Path

from udpbackend.errors import HostError

ROOT = Path("/proc/sys/net")


def read(key: str, root: Path = ROOT) -> int | None:
    """The number under a key like `ipv4/ip_forward`; None where the kernel has no such key. Raises HostError."""
    try:
        return int((root / key).read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"cannot read {root / key}: {error.strerror}") from None


def called(key: str) -> str:
    """The key as the sysctl program writes it, which exchanges the dot in a device's name and the slash."""
    return "net." + key.translate(str.maketrans("/.", "./"))
