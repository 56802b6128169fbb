"""`udp-backend cleanup`: removes what a daemon has left on this host, ours or flannel's.

Owns the order, the table and what is done about failures; each part knows its own leftovers. Must not touch what a
running daemon or another program uses, and does not load the daemon. Exit status: 0 all went that was to go, 1 not all,
2 usage.

Theory of operation: each part says what there is and how it goes, and changes nothing. What another overlay's daemon
may use as its own is left alone where one runs, or where that cannot be seen. All is shown before the first thing is
removed, and a failure stops nothing but the subnet file: cni0 and the lease are known by it, so it goes last, and only
if all else went.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from udpbackend.commands.cleanup_files import files
from udpbackend.commands.parser import Parser
from udpbackend.commands.status import given
from udpbackend.commands.table import printable, table
from udpbackend.errors import HostError, UdpBackendError, UsageError
from udpbackend.host import mark
from udpbackend.host.addresses import local_addresses
from udpbackend.host.leftovers_devices import Device, bridge, overlay_devices, read_devices
from udpbackend.host.leftovers_item import Leftover
from udpbackend.host.leftovers_rules import routes, rules
from udpbackend.host.leftovers_users import OURS, in_the_dark, overlays
from udpbackend.host.netlink import Netlink
from udpbackend.model import Prefix
from udpbackend.settings import Given, Settings
from udpbackend.subnets.envfile import networks_of, read_env, subnets_of

CONNECT_S = 1.0

FLAGS = {
    "subnet_file": ("FILE", "the daemon's (default /run/flannel/subnet.env)"),
    "status_socket": ("FILE", "the daemon's (default: the subnet file ending in .sock)"),
    "etcd_endpoints": ("URLS", "look there for this host's lease as well"),
    "etcd_prefix": ("PATH", "where its keys begin (default /coreos.com/network)"),
    "etcd_keyfile": ("FILE", "private key of the client's certificate"),
    "etcd_certfile": ("FILE", "the client's certificate"),
    "etcd_cafile": ("FILE", "certificates that etcd's own is checked with"),
    "etcd_username": ("NAME", "user of etcd"),
    "etcd_password": ("TEXT", "its password"),
}
"""Fields of Settings that matter here: each is read from the flag, or from the variable that the daemon reads."""


def run(argv: Sequence[str]) -> int:
    """Shows what is left over, removes it unless --dry-run is given, and says what it has done."""
    options = _parser().parse_args(argv)
    told = given(vars(options), FLAGS, os.environ)
    return asyncio.run(_clean(told, dry_run=options.dry_run))


async def _clean(told: Mapping[str, Given], *, dry_run: bool) -> int:
    settings = Settings.read(told)
    _refuse_a_daemon(settings.status_socket)
    async with Netlink() as netlink:
        devices = await read_devices(netlink)
        if used := next((it for it in devices if it.ours and it.queues), None):
            raise HostError(f"{used.name} is in use: a daemon holds {used.queues} queue(s) of it; stop it first")
        lease = any(field.startswith("etcd_") for field in told)
        found, failed = await _find(netlink, settings, devices, lease=lease)
        found = [_claimed(it, _claim(devices)) for it in found]
        if found:
            rows = [(what, it.why, it.action) for it in found for what in it.what]
            print("\n".join(table(("WHAT", "WHY", "ACTION"), rows)), end="\n\n", flush=True)
        going = [it for it in found if not it.alone]
        if dry_run:
            print("nothing was removed: --dry-run" if going else "nothing to clean up")
        elif going:
            failed += await _remove(going, failed=bool(failed))
        elif not failed:
            print("nothing to clean up")
    for failure in failed:
        sys.stderr.write(f"udp-backend: {printable(failure)}\n")
    return int(bool(failed))


async def _find(
    netlink: Netlink, settings: Settings, devices: Sequence[Device], *, lease: bool
) -> tuple[list[Leftover], list[str]]:
    """What there is, in the order in which it goes, and what could not be looked at."""
    found, failed = list(overlay_devices(netlink, devices)), list[str]()
    env: Mapping[str, str] = {}
    try:
        env = read_env(settings.subnet_file)
    except HostError as error:
        failed.append(str(error))
    subnets, networks = subnets_of(env), networks_of(env)
    found += bridge(netlink, devices, subnets)
    indexes = {it.index for it in devices if mark.overlays(it.name)}
    parts: list[Callable[[], Awaitable[list[Leftover]]]] = [partial(routes, netlink, networks, subnets, indexes), rules]
    if lease:
        parts.append(partial(_leases, netlink, settings, subnets))
    parts.append(partial(files, settings))
    for part in parts:
        try:
            found += await part()
        except UsageError:
            raise
        except UdpBackendError as error:
            failed.append(str(error))
    return found, failed


async def _leases(netlink: Netlink, settings: Settings, subnets: Sequence[Prefix]) -> list[Leftover]:
    from udpbackend.commands.cleanup_lease import leases  # noqa: PLC0415  (gRPC takes longer to load than all the rest)

    return await leases(settings, subnets, await local_addresses(netlink))


async def _remove(going: Sequence[Leftover], *, failed: bool) -> list[str]:
    """One after the other; what could not be removed."""
    failures: list[str] = []
    for it in going:
        if it.clue and (failed or failures):
            print(f"kept {it.what[0]}: what is still there is known by it")
            continue
        try:
            await it.remove()
        except UdpBackendError as error:
            failures.append(str(error))
        else:
            print("\n".join(f"removed {printable(what)}" for what in it.what), flush=True)
    return failures


def _claim(devices: Sequence[Device]) -> str:
    """Why what another overlay could use is left alone; empty where none runs."""
    if others := [program for program in overlays() if program.name != OURS]:
        return f"perhaps in use by {others[0]}"
    if tun := next((it for it in devices if it.foreign_tun), None):
        return f"perhaps in use: {tun.name} shows that flanneld runs, or another program like it"
    return in_the_dark()


def _claimed(leftover: Leftover, claim: str) -> Leftover:
    return replace(leftover, alone=claim) if claim and leftover.shared and not leftover.alone else leftover


def _refuse_a_daemon(path: Path) -> None:
    """Raises HostError if a daemon of ours runs: all there is may be its own."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        except PermissionError as error:
            raise HostError(f"cannot ask on {path}: permission denied, run it as root") from error
        except OSError as error:
            raise HostError(f"cannot tell whether a daemon answers on {path}: {error.strerror or error}") from error
        else:
            raise HostError(f"a daemon is running: it answers on {path}; stop it first")
    if running := [program for program in overlays() if program.name == OURS]:
        raise HostError(f"a daemon is running: {running[0]}; stop it first")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="udp-backend cleanup",
        description="Shows what an overlay of ours or flannel's has left on this host (devices, routes, rules, files), "
        "then removes it. What is in use, or may be another program's, is left alone. The lease in etcd is looked for "
        "only if a flag or a variable says where etcd is. A flag that is not given is read from the environment: "
        "FLANNELD_SUBNET_FILE for --subnet-file.",
        epilog="Exit status: 0 all went that was to go, 1 not all, or a daemon runs, 2 usage.",
    )
    parser.add_argument("-dry-run", "--dry-run", action="store_true", help="only show it")
    for field, (metavar, words) in FLAGS.items():
        flag = field.replace("_", "-")
        parser.add_argument(f"-{flag}", f"--{flag}", metavar=metavar, help=words)
    return parser
