"""The front door of the CNI plugin: what can be answered at once is answered without loading the rest.

Owns the answer to VERSION, and the lines for a person who runs the plugin by hand.
"""

from __future__ import annotations

import os
import sys

import udpbackend
from udpbackend.cni.versions import VERSIONS

INCOMPLETE = """{
    "code": 999,
    "msg": "the CNI plugin of udp-backend needs the whole standard library on this host: %s lacks %s (Debian has all \
of it in python3, not in python3-minimal)"
}"""
"""Distributions split Python; without json there is nobody else to print this."""

MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
"""Names of Go where they differ from the kernel's."""


def main() -> int:
    """Answers the runtime; the exit status."""
    command = os.environ.get("CNI_COMMAND", "")
    if not command:
        sys.stderr.write(_about())
        return 0
    if command == "VERSION":
        sys.stdout.write(version_text())
        return 0
    try:
        from udpbackend.cni.commands import run  # noqa: PLC0415 half of the time that VERSION takes
    except ImportError as error:
        sys.stdout.write(INCOMPLETE % (sys.executable, error.name))
        return 1
    return run(command)


def version_text() -> str:
    """The answer to VERSION."""
    supported = ",".join(f'"{version}"' for version in VERSIONS)
    return f'{{"cniVersion":"{VERSIONS[-1]}","supportedVersions":[{supported}]}}\n'


def _about() -> str:
    """In the form of flannel's plugin, and yet to be told from it."""
    machine = os.uname().machine
    platform = f"linux/{MACHINES.get(machine, machine)}"
    return (
        f"CNI Plugin flannel version {udpbackend.__version__}+udp-backend ({platform}) commit unknown\n"
        f"CNI protocol versions supported: {', '.join(VERSIONS)}\n"
    )
