"""What overlays leave on a host, made by hand, and the whole state of a host as its own programs list it.

Must not know how any of it is found or removed.
"""

import asyncio
import os
import re
import shutil
import socket
import subprocess
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import firewall_facts
import firewall_texts
from inside import ip

from udpbackend.dataplane.tun import open_tun
from udpbackend.host.flannel0 import OverlayLink
from udpbackend.host.mark import ALIAS
from udpbackend.host.netlink import Netlink
from udpbackend.host.overlay_plan import Overlay
from udpbackend.model import Prefix

OVERLAY = Overlay(IPv4Address("10.5.3.0"), Prefix.parse("10.5.0.0/16"), 1472)
ENV = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.3.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n"

LISTINGS = (
    ("ip", "-d", "-o", "link"),
    ("ip", "-o", "address"),
    ("ip", "route", "show", "table", "all"),
    ("ip", "-6", "route", "show", "table", "all"),
    ("ip", "neigh"),
    ("iptables-save",),
    ("ip6tables-save",),
    ("nft", "--stateless", "list", "ruleset"),
)


VOLATILE = re.compile(
    r" \[\d+:\d+\]| linkdown|NO-CARRIER,|,LOWER_UP|state \w+|qdisc \w+|\w+_timer +[\d.]+"
    r"| (REACHABLE|DELAY|STALE|PROBE|FAILED|INCOMPLETE) *$"
)
"""Counters, timers, a neighbour's age, and what follows some time after a queue is closed."""


def state(folder, enter=()):
    """Everything that a cleanup could change: each program's listing without counters and times, and the files."""
    found = {}
    for words in LISTINGS:
        done = subprocess.run([*enter, *words], check=True, capture_output=True, text=True)
        lines = [VOLATILE.sub("", line) for line in done.stdout.splitlines() if not line.startswith("#")]
        # The kernel lists neighbours as their hash table has them, which is made anew as it grows.
        found[" ".join(words)] = sorted(lines) if "neigh" in words else lines
    files = {path.name: path.read_bytes() if path.is_file() else path.stat().st_mode for path in folder.iterdir()}
    return found | {"files": files}


def host():
    """A host with much that is not an overlay's, some of it much like it; quiet, so that nothing changes by itself."""
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
    ip("link", "add", "eth0", "type", "bridge")
    ip("address", "add", "192.0.2.1/24", "dev", "eth0")
    ip("link", "set", "eth0", "alias", ALIAS)  # no device that we make
    ip("link", "set", "eth0", "up")
    ip("link", "add", "vxlan9", "type", "vxlan", "id", "9", "dstport", "4789")
    ip("link", "set", "vxlan9", "up")
    ip("link", "add", "flannel9", "type", "bridge")
    ip("route", "add", "10.6.2.0/24", "via", "192.0.2.9")
    ip("route", "add", "10.5.4.0/24", "via", "192.0.2.9", "proto", "static")
    ip("route", "add", "blackhole", "10.6.0.0/16")
    for program in ("iptables", "ip6tables"):
        firewall_facts.others(program)
    firewall_facts.sh("nft", "-f", "-", text=firewall_facts.OTHERS_NFT)


def leave_flannel0(folder):
    """As the udp backend leaves it, with the files; gives the queue and the status socket, still open."""

    async def configure():
        async with Netlink() as netlink:
            await OverlayLink(netlink).configure(OVERLAY)

    queue = open_tun("flannel0")
    asyncio.run(configure())
    queue.persist()
    (folder / "subnet.env").write_text(ENV)
    status = socket.socket(socket.AF_UNIX)
    status.bind(os.fspath(folder / "subnet.sock"))
    return queue, status


def leave_all(folder):
    """One of each kind, of ours and of flannel's."""
    for left in leave_flannel0(folder):
        left.close()
    (folder / ".subnet.env.a1b2c3d_").write_bytes(bytes(4096))
    for number, alias in ((1, ""), (7, ALIAS)):
        ip("link", "add", f"flannel.{number}", "type", "vxlan", "id", number, "dstport", "8472")
        ip("link", "set", f"flannel.{number}", "alias", alias, "up")
    ip("route", "add", "10.5.8.0/24", "via", "10.5.8.0", "dev", "flannel.1", "onlink")
    ip("route", "add", "10.5.9.0/24", "via", "10.5.9.0", "dev", "flannel.7", "onlink", "proto", "117")
    for number in range(10, 20):
        ip("route", "add", f"10.5.{number}.0/24", "via", "192.0.2.9", "proto", "117")
    ip("route", "add", "blackhole", "10.5.3.0/24", "metric", "4294967295", "proto", "117")
    ip("link", "add", "cni0", "type", "bridge")
    ip("address", "add", "10.7.1.1/24", "dev", "cni0")
    ip("link", "set", "cni0", "up")
    leave_rules()


def leave_vxlan():
    """flannel.1, as flannel leaves it."""
    ip("link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472")


def leave_rules():
    """flannel's, of both kinds."""
    chains = firewall_texts.NAT + firewall_texts.NAT_JUMP + "\n"
    forward = firewall_texts.FORWARD + firewall_texts.FORWARD_JUMP + "\n"
    text = f"*nat\n{chains}COMMIT\n*filter\n{forward}COMMIT\n"
    firewall_facts.sh("iptables-restore", "--noflush", text=text)
    firewall_facts.sh("nft", "-f", "-", text=firewall_texts.NFT)


@contextmanager
def running(folder, name, *flags):
    """A program of that name that runs in this namespace, and does nothing."""
    program = folder / name
    shutil.copy(shutil.which("sleep"), program)
    process = subprocess.Popen([program, *flags, "60"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()
