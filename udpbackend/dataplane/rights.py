"""What this process may do: the capabilities it needs are kept of those it was given, the others are given up.

Owns the list of them, and reading what is held. Must not know how a packet is moved or a rule is written. Capabilities
belong to threads, so they are given up before there is a second one. Who starts us with less, as the systemd unit and
the manifest do, keeps just that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from udpbackend._native import lib
from udpbackend.settings import Settings

DAC_OVERRIDE, NET_BIND_SERVICE, NET_ADMIN, NET_RAW, SYS_MODULE, SYS_NICE, BPF = 1, 10, 12, 13, 16, 23, 39
"""Bits of the capability sets of linux/capability.h."""
NAMES = {
    DAC_OVERRIDE: "dac_override",
    NET_BIND_SERVICE: "net_bind_service",
    NET_ADMIN: "net_admin",
    NET_RAW: "net_raw",
    SYS_MODULE: "sys_module",
    SYS_NICE: "sys_nice",
    BPF: "bpf",
}
BITS = 64
LEGACY_TABLES = (Path("/proc/net/ip_tables_names"), Path("/proc/net/ip6_tables_names"))
"""There once the modules of the legacy iptables are loaded."""
STATUS = Path("/proc/thread-self/status")


class Rights(NamedTuple):
    """What a process holds."""

    capabilities: tuple[str, ...]
    """By name, without `CAP_`; those we never need by number."""
    no_new_privs: bool
    """Whether nothing that it starts can get more."""


def limit(settings: Settings) -> str:
    """Gives up what is not needed with these settings; what to say when that is refused, else nothing."""
    kept = set(_needed(settings))
    if not all(_accessible(path, mode) for path, mode in _files(settings)):
        kept.add(DAC_OVERRIDE)
    error = lib.udpb_limit_rights(sum(1 << bit for bit in kept))
    return f"capabilities that are not needed could not be given up: {os.strerror(-error)}" if error else ""


def held(path: Path = STATUS) -> Rights:
    """What this thread may do now; every thread of ours may do the same."""
    text = path.read_text(encoding="ascii")
    effective = int(_field("CapEff", text), 16)
    bits = [bit for bit in range(BITS) if effective >> bit & 1]
    return Rights(tuple(NAMES.get(bit, str(bit)) for bit in bits), _field("NoNewPrivs", text) == "1")


def _field(name: str, text: str) -> str:
    return next((line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:")), "0")


def _needed(settings: Settings) -> Iterator[int]:
    yield NET_ADMIN
    yield NET_BIND_SERVICE  # a registry may say any port, and it is asked much later
    if settings.nice < 0:
        yield SYS_NICE
    if settings.workers > 1:
        yield BPF
    if (settings.ip_masq or settings.iptables_forward_rules) and _is_legacy(_found("iptables")):
        yield NET_RAW
        if not all(path.exists() for path in LEGACY_TABLES):
            yield SYS_MODULE  # it loads them itself; the kernel does so for the new one


def _found(program: str) -> str | None:
    """Where on PATH it is. shutil knows more and takes milliseconds to load, which packets may be waiting for."""
    places = (f"{directory}/{program}" for directory in os.get_exec_path())
    return next((place for place in places if os.access(place, os.X_OK)), None)


def _is_legacy(program: str | None) -> bool:
    """Whether iptables is, or may be, the one that asks the kernel over a raw socket."""
    return program is not None and "nft" not in os.path.basename(os.path.realpath(program))  # noqa: PTH119 a name only


def _files(settings: Settings) -> Iterable[tuple[Path, int]]:
    """What is read and written later on; root's own files need no capability."""
    given = (settings.static_subnets, settings.etcd_keyfile, settings.etcd_certfile, settings.etcd_cafile)
    for path in (Path(__file__), Path(sys.prefix), *given, settings.kubeconfig_file, settings.net_config_path):
        if path is not None:
            yield path, os.R_OK
    yield settings.subnet_file.parent, os.W_OK | os.X_OK


def _accessible(path: Path, wanted: int) -> bool:
    """Whether owner, group and mode alone let us, all the way from the root."""
    found = path.absolute()
    for place, mode in ((found, wanted), *((parent, os.X_OK) for parent in found.parents)):
        try:
            it = place.stat()
        except OSError:  # what is not there needs no right
            continue
        shift = 6 if it.st_uid == os.geteuid() else 3 if it.st_gid == os.getegid() else 0
        if it.st_mode >> shift & mode != mode:
            return False
    return True
