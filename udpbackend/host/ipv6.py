"""Whether this host lets a device carry IPv6, before the device is made.

Owns the reading of the kernel's switches. Changes none: to switch IPv6 on is the administrator's decision.
"""

from __future__ import annotations

from pathlib import Path

from udpbackend.errors import HostError

CONF = Path("/proc/sys/net/ipv6/conf")


def require_ipv6(device: str, conf: Path = CONF) -> None:
    """Raises HostError that names the switch; a device that is not there yet will get that of `default`."""
    if not conf.exists():
        raise HostError(
            "this host's kernel has no IPv6: boot it without ipv6.disable=1, or take this node's IPv6Subnet away"
        )
    which = device if (conf / device).exists() else "default"
    try:
        off = (conf / which / "disable_ipv6").read_text(encoding="ascii").strip() != "0"
    except OSError as error:
        raise HostError(f"cannot read {conf / which / 'disable_ipv6'}: {error.strerror}") from None
    if off:
        raise HostError(
            f"IPv6 is switched off for {device}: sysctl -w net.ipv6.conf.{which}.disable_ipv6=0 switches it on, "
            "or take this node's IPv6Subnet away"
        )
