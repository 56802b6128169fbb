"""The commands of a container runtime: which may run for which version, and the error at the end.

Owns the dispatch and the one door where an error becomes JSON on standard output. VERSION is answered before this file
is loaded.
"""

from __future__ import annotations

import os
import re
import sys

from udpbackend.cni import attachment, jsontext, request, upkeep
from udpbackend.cni.errors import (
    INCOMPATIBLE_VERSION,
    INTERNAL,
    INVALID_ENVIRONMENT,
    INVALID_NETNS,
    IO_FAILURE,
    UNDECODABLE,
    PluginError,
    reason,
)
from udpbackend.cni.versions import VERSIONS

SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""Commands that came later, and the version of the specification with which they did."""

DO = {"CHECK": attachment.check, "DEL": attachment.delete, "GC": upkeep.collect, "STATUS": upkeep.status}
"""Those without a result."""

OLDEST = "0.1.0"
"""What a configuration without a version is."""

OWN_NETNS = "/proc/self/ns/net"


def run(command: str) -> int:
    """Answers on standard output; the exit status."""
    status = 0
    try:
        answer = _answer(command)
    except PluginError as error:
        answer, status = error.json(), 1
    except Exception as error:  # noqa: BLE001 a runtime understands nothing but JSON
        sys.excepthook(*sys.exc_info())
        answer, status = PluginError(INTERNAL, f"{type(error).__name__}: {error}").json(), 1
    sys.stdout.buffer.write(answer)
    sys.stdout.flush()
    return status


def _answer(command: str) -> bytes:
    request.check_environment(command)
    config = request.Config(_input())
    if command not in ("ADD", *DO):
        raise PluginError(INVALID_ENVIRONMENT, f"unknown CNI_COMMAND: {command}")
    version = config.cni_version or OLDEST
    if command in SINCE:
        _check_command(command, version)
    if version not in VERSIONS:
        supported = " ".join(f'"{it}"' for it in VERSIONS)
        details = f'config is "{version}", plugin supports [{supported}]'
        raise PluginError(INCOMPATIBLE_VERSION, "incompatible CNI versions", details)
    if command not in SINCE:
        _check_netns()
    if command == "ADD":
        return attachment.add(config)
    DO[command](config)
    return b""


def _input() -> bytes:
    try:
        with open(0, "rb", closefd=False) as stdin:
            return stdin.read()
    except OSError as error:
        raise PluginError(IO_FAILURE, f"error reading from stdin: {reason(error)}") from None


def _check_command(command: str, version: str) -> None:
    number = _number(version)
    if number < _number(SINCE[command]):
        raise PluginError(INCOMPATIBLE_VERSION, f"config version does not allow {command}")
    if number > _number(VERSIONS[-1]):
        raise PluginError(INCOMPATIBLE_VERSION, f"plugin version does not allow {command}")


def _number(version: str) -> tuple[int, ...]:
    """A version as up to three numbers, those not given 0."""
    parts = version.split(".")
    if len(parts) > 3:
        raise PluginError(UNDECODABLE, f'invalid version "{version}": too many parts')
    for part, name in zip(parts, ("major", "minor", "micro")):
        if not re.fullmatch("[+-]?[0-9]{1,9}", part):
            text = jsontext.encode(part).decode()
            words = f"failed to convert {name} version part {text}: strconv.Atoi: parsing {text}: invalid syntax"
            raise PluginError(UNDECODABLE, words)
    return tuple(map(int, [*parts, "0", "0"][:3]))


def _check_netns() -> None:
    """Before anything is done: `bridge` would make, or delete, an interface of the host itself."""
    if os.environ.get("CNI_NETNS_OVERRIDE", "").upper() in ("TRUE", "1"):
        return
    try:
        same = os.path.samefile(os.environ.get("CNI_NETNS", ""), OWN_NETNS)
    except OSError:
        return  # it may be gone already when the pod is deleted
    if same:
        words = "plugin's netns and netns from CNI_NETNS should not be the same"
        raise PluginError(INVALID_NETNS, words)
