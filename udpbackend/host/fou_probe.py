"""Whether this kernel can be the dataplane: a packet goes through a FOU tunnel in a network namespace of its own.

Owns the loading of the kernel's module and the namespace, which ends with the thread that made it. Must not know
backends. What the host has is not touched, but for modules that are loaded; `ipip` and `sit` bring an idle device each,
tunl0 and sit0, to every namespace.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from pyroute2 import AsyncIPRoute

from udpbackend.errors import HostError
from udpbackend.host import fou, fou_link, rtnetlink
from udpbackend.host.bulk import Bulk
from udpbackend.host.entries import Route
from udpbackend.host.fou_link import Tunnel
from udpbackend.host.netlink import failing
from udpbackend.model import Prefix

CLONE_NEWNET = 0x40000000
LOAD_S = 10.0
PASS_S = 2.0
"""How long the packet may take: it never leaves the kernel."""
SO_NO_CHECK = 11
DEVICE, PORT = "probe0", 8285
HERE, THERE = IPv4Address("10.0.0.1"), IPv4Address("10.0.1.1")
LOOPBACK, PEER = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")
LOOPBACK_INDEX = 1
HERE6 = IPv6Address("fd00::1")
MTU = 1472
UDP_PORT = 9


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe has found."""

    missing: str = ""
    """What the kernel or this process lacks; empty if nothing is known to be missing."""
    unproven: str = ""
    """Why it could not be tried though nothing is known to be missing."""


def foresee() -> None:
    """Probes now what may be asked for later, when this process may have given up the rights to it."""
    for ipv6 in (False, True):
        probe(ipv6=ipv6)


@cache
def probe(*, ipv6: bool) -> Verdict:
    """Tries it, with IPv6 inside too if that is asked for; once in a process. Blocks for a moment; for threads."""
    try:
        if not fou.exists() and (why := load("fou")):
            return Verdict(missing=f"the kernel has no FOU: {why}; it is the module fou (CONFIG_NET_FOU)")
        if not fou.exists():
            return Verdict(missing="the module fou is loaded and the kernel does not know FOU all the same")
    except OSError as error:
        return Verdict(missing=f"the kernel cannot be asked for FOU: {error.strerror}")
    return _in_a_namespace(lambda ip: _try(ip, ipv6=ipv6))


def load(module: str) -> str:
    """Loads a module of the kernel; why that is not possible, empty if it is done."""
    program = shutil.which("modprobe", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        return (
            f"its module is not loaded, and there is no program modprobe to load it (`modprobe {module}` on the host)"
        )
    try:
        done = subprocess.run(
            [program, module], capture_output=True, text=True, errors="replace", timeout=LOAD_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cannot run modprobe: {error}"
    return "" if done.returncode == 0 else " ".join(done.stderr.split()) or f"modprobe ended with {done.returncode}"


def _in_a_namespace(work: Callable[[Any], Awaitable[None]]) -> Verdict:
    found = [Verdict(unproven="it was not tried")]

    async def run() -> None:
        async with AsyncIPRoute(strict_check=True, ext_ack=True) as ip:
            await work(ip)

    def thread() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) != 0:
            why = os.strerror(ctypes.get_errno())
            found[0] = Verdict(unproven=f"cannot make a network namespace to try it in (capability SYS_ADMIN): {why}")
            return
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(run())
        except HostError as error:
            found[0] = Verdict(missing=str(error))
        else:
            found[0] = Verdict()

    trying = threading.Thread(target=thread, name="probe")
    trying.start()
    trying.join()
    return found[0]


async def _try(ip: Any, *, ipv6: bool) -> None:
    """Raises HostError that names what does not work. The peer is a socket of ours that sends each packet back."""
    with failing("set up loopback in a network namespace"):
        await rtnetlink.change_link(ip, LOOPBACK_INDEX, up=True)
    # With a remote address: a gateway on loopback is none for the kernel.
    tunnel = Tunnel(DEVICE, LOOPBACK, PORT, HERE, Prefix(int(HERE), 24), MTU, strict=False, remote=PEER)
    index, _ = await fou_link.ensure(ip, tunnel)
    if ipv6:
        await fou_link.ensure(
            ip, Tunnel(f"{DEVICE}-v6", LOOPBACK, PORT, HERE6, Prefix(int(HERE6), 64, 6), MTU, strict=False)
        )
    with failing("send a packet through a FOU tunnel"):
        with Bulk() as bulk:
            way = Route.to(Prefix(int(THERE), 32), b"", index)
            if isinstance(refused := bulk.exchange([way.add()])[0], OSError):
                raise refused
        _pass(tunnel)


def _pass(tunnel: Tunnel) -> None:
    """Raises OSError or HostError unless a datagram goes out through the tunnel and one comes in through it."""
    payload = os.urandom(16)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pod,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        for it in (pod, peer):
            it.settimeout(PASS_S)
        peer.bind((str(PEER), tunnel.port))
        pod.bind((str(tunnel.address), UDP_PORT))
        pod.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        try:
            pod.sendto(payload, (str(THERE), UDP_PORT))
            packet = peer.recv(2048)
            peer.sendto(answer(packet), (str(tunnel.local), tunnel.port))
            if pod.recv(2048) == payload:
                return
        except TimeoutError:
            pass
    raise HostError("a packet does not pass through a FOU tunnel here")


def answer(packet: bytes) -> bytes:
    """An IPv4 packet with its addresses exchanged: its checksums stay right."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]
