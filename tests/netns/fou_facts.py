"""What the tests of the kernel's dataplane know of FOU: whether this kernel has it, and what stands in a namespace.

Must not know what a backend should have done.
"""

import json
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from kernel_overlay import shown

from bench.lab.topology import Host

KERNEL = ("--dataplane=kernel",)


def lacks() -> str:
    """The module of the kernel that is missing; empty where all are there."""
    for module in ("fou", "ipip", "sit"):
        done = subprocess.run([shutil.which("modprobe") or "false", module], capture_output=True, check=False)
        if done.returncode and not os.path.exists(f"/sys/module/{module}"):  # noqa: PTH110 (not a file of ours)
            return module
    return ""


def has_fou() -> bool:
    """The same question without loading anything."""
    return (
        bool(shutil.which("modprobe")) and not subprocess.run(["modprobe", "-n", "-q", "fou"], check=False).returncode
    )


def require_fou():
    """Skips where the kernel has no FOU, which is no fault of a machine: the emulated kernels have it."""
    if module := lacks():
        pytest.skip(
            f"the kernel {os.uname().release} has no module {module}: "
            "make test-kernels KERNEL=6.12 ARGS=tests/netns/test_kernel_dataplane.py"
        )


def refuse_fou():
    """Skips where the kernel has it: what is tested is that it is missing."""
    if not lacks():
        pytest.skip(f"the kernel {os.uname().release} has FOU")


@contextmanager
def finished(host: Host):
    """That host finishes all that it sends, as it would behind a card.

    A kernel's tunnel leaves the inner checksum to the link, and cutting what is longer than the MTU, and a veth pair
    does neither. Only flanneld needs it: our userspace nodes take both as they come.
    """
    host.namespace.run("ethtool", "-K", "eth0", "tx", "off")
    try:
        yield
    finally:
        host.namespace.run("ethtool", "-K", "eth0", "tx", "on")


def fou_ports(host: Host):
    """As `ip fou show` prints them, in order."""
    return sorted(line.strip() for line in host.namespace.run("ip", "fou", "show").splitlines())


def kind(host: Host, device="flannel0"):
    """Of a device; None where there is none."""
    found = [it for it in shown(host.namespace, "-d", "link", "show") if it["ifname"] == device]
    return found[0].get("linkinfo", {}).get("info_kind") if found else None


def peers(host: Host):
    """The addresses that the rules let in."""
    said = json.loads(host.namespace.run("nft", "-j", "list", "set", "ip", "udpbackend-8285", "peers"))
    return sorted(it for part in said["nftables"] for it in part.get("set", {}).get("elem", ()))
