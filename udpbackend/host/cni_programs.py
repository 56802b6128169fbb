"""What the CNI programs of this host say of themselves: the versions of the specification that they speak.

Owns the asking: VERSION, the one command that changes nothing and needs no configuration. Must not know who wants to
know, nor what is to be done about it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Container, Iterable
from pathlib import Path

from udpbackend.cni.delegate import BRIDGE
from udpbackend.gojson import Fields

CONFIGURATIONS = {".conf", ".conflist", ".json"}
"""How the names of files end that a container runtime takes for CNI configurations."""

ANSWER_S = 10.0
"""What a busy host may take to start a program; it takes some hundredths of a second."""


def needed(plugins: Iterable[Fields], ours: Container[str]) -> list[str]:
    """The programs that it takes to attach a pod, those our plugin hands on to included. Raises ConfigError.

    `ours`: the types that mean our plugin.
    """
    found = []
    for plugin in plugins:
        kind, ipam = plugin.string("type"), plugin.raw("ipam")
        found.append(kind)
        default = ""
        if kind in ours:
            delegate, default = plugin.raw("delegate"), "host-local"
            found.append((delegate.get("type") if isinstance(delegate, dict) else None) or BRIDGE)
        program = ipam.get("type", default) if isinstance(ipam, dict) else default
        found += [program] if isinstance(program, str) and program else []
    return list(dict.fromkeys(map(str, found)))


def versions(program: Path) -> frozenset[str] | None:
    """Those that a program speaks; None if there is no such program, or it does not say."""
    try:
        done = subprocess.run(
            [program.absolute()],
            env={**os.environ, "CNI_COMMAND": "VERSION"},
            input=b'{"cniVersion":"1.0.0"}',
            capture_output=True,
            timeout=ANSWER_S,
            check=False,
        )
        said = json.loads(done.stdout)["supportedVersions"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return None
    return frozenset(it for it in said if isinstance(it, str)) if isinstance(said, list) else None


def find(program: str, folders: Iterable[Path]) -> Path | None:
    """Where a runtime finds it."""
    return next((path for folder in folders if (path := folder / program).is_file()), None)
