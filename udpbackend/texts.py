"""What a setting's text may be: the way from a written text to a checked value, and the words for what was expected.

A reader takes a text and gives the value, or raises ValueError with "expected ...". It knows neither the flag nor the
variable the text comes from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Literal, cast

SourceCheck = Literal["subnet", "peer", "off"]
SOURCE_CHECKS = ("subnet", "peer", "off")

Dataplane = Literal["userspace", "kernel", "auto"]
DATAPLANES = ("userspace", "kernel", "auto")

OFFLOADS = ("tso", "uso", "tcp-coalesce", "udp-coalesce", "udp-segment", "udp-gro")
"""Those that can be switched, by their names in `status`."""

OFFLOADS_OFF = frozenset({"udp-coalesce"})
"""Off unless switched on: programs that see packets, not sockets, would see several UDP datagrams as one."""

WORKERS_MAX = 16
"""As many queues as the dataplane has."""

NICE = -15
"""Far above what shares the host, and below what nothing may go before, like a watchdog at -20."""

SOURCE_PORTS_MAX = 15
"""As many sockets as a queue takes beside its own."""

GO_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
GO_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})

LONGEST_RESYNC_S = 86400


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


def go_bool(text: str) -> bool:
    """A boolean as Go's strconv reads it."""
    if text not in GO_TRUE | GO_FALSE:
        raise ValueError("expected true or false")
    return text in GO_TRUE


def _ipv6(text: str) -> IPv6Address:
    try:
        return IPv6Address(text if "%" not in text else "")
    except ValueError:
        raise ValueError("expected an IPv6 address without a scope, like 2001:db8::7") from None


def _endpoints(text: str) -> tuple[str, ...]:
    found = tuple(part.strip().rstrip("/") for part in text.split(","))
    if not all(re.fullmatch(r"(https?://)?(\[[0-9A-Fa-f:.]+\]|[^/\s:@\[\]]+):[0-9]{1,5}", it) for it in found):
        raise ValueError("expected URLs with host and port, separated by commas, like https://192.0.2.7:2379")
    return found


def _prefix(text: str) -> str:
    parts = [part for part in text.split("/") if part]
    if not parts:
        raise ValueError("expected a path, like /coreos.com/network")
    return "/" * text.startswith("/") + "/".join(parts)  # without a slash these are other keys, in flannel too


def _between(lowest: int, highest: int, what: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = _whole(text, highest, expected := f"expected {what} from {lowest} to {highest}")
        if number < lowest:
            raise ValueError(expected)
        return number

    return read


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


def _nice(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,2}", text) or not -20 <= int(text) <= 0:
        raise ValueError("expected a nice value from -20 to 0")
    return int(text)


def _cpus(text: str) -> tuple[int, ...]:
    """A list of cores as in /sys/devices/system/cpu/online and taskset: `0,2-3`."""
    allowed = os.sched_getaffinity(0)
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if first > last or not allowed.issuperset(range(first, last + 1)):
            raise ValueError(f"expected cores that this process may run on ({_ranges(allowed)}), like 0,2-3")
        found += range(first, last + 1)
    return tuple(found)


def _ranges(numbers: set[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


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


def _dataplane(text: str) -> Dataplane:
    if text not in DATAPLANES:
        raise ValueError("expected userspace, kernel or auto")
    return cast("Dataplane", text)


def _offloads_off(text: str) -> frozenset[str]:
    """Switches as `ethtool -K` has them, by commas; what is not named stays as it is without the flag."""
    off = set(OFFLOADS_OFF)
    for part in text.split(","):
        name, _, state = part.strip().partition("=")
        if name not in OFFLOADS or state not in ("on", "off"):
            raise ValueError(f"expected offloads with on or off, like udp-coalesce=on,tso=off ({', '.join(OFFLOADS)})")
        (off.add if state == "off" else off.discard)(name)
    return frozenset(off)


REPEATABLE = frozenset({"iface", "iface_regex"})
"""Fields that hold every text given, in order; of any other field the last text counts."""

SECRET = frozenset({"etcd_password"})
"""Fields whose texts are shown to nobody."""

READERS: dict[str, Callable[[str], Any]] = {
    "etcd_endpoints": _endpoints,
    "etcd_prefix": _prefix,
    "etcd_keyfile": _path,
    "etcd_certfile": _path,
    "etcd_cafile": _path,
    "etcd_username": str,
    "etcd_password": str,
    "subnet_lease_renew_margin": _between(1, 1439, "minutes"),
    "kube_subnet_mgr": go_bool,
    "kube_api_url": str,
    "kubeconfig_file": _path,
    "kube_annotation_prefix": str,
    "net_config_path": _path,
    "set_node_network_unavailable": go_bool,
    "ip_masq": go_bool,
    "ip_masq_fully_random_disable": go_bool,
    "replace": go_bool,
    "seccomp": go_bool,
    "iptables_forward_rules": go_bool,
    "iptables_resync": _between(1, LONGEST_RESYNC_S, "seconds"),
    "ip_blackhole_route": go_bool,
    "cleanup_on_exit": go_bool,
    "public_ipv6": _ipv6,
    "iface": str,
    "iface_regex": _regex,
    "iface_can_reach": _ipv4,
    "public_ip": _ipv4,
    "subnet_file": _path,
    "healthz_ip": _ip,
    "healthz_port": _port,
    "ui": go_bool,
    "verbosity": _level,
    "static_subnets": _path,
    "node_name": str,
    "source_check": _source_check,
    "dataplane": _dataplane,
    "workers": _workers,
    "worker_cpus": _cpus,
    "nice": _nice,
    "source_ports": _source_ports,
    "offloads_off": _offloads_off,
    "copy_dscp": go_bool,
    "status_socket": _path,
}
