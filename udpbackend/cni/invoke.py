"""Finding and running another plugin, as the CNI library does it.

Owns the child: its three standard streams are files in memory, so that neither side can block the other. Must not know
what a configuration or a result says.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import time

from udpbackend.cni import jsontext
from udpbackend.cni.errors import PluginError, reason
from udpbackend.cni.versions import VERSIONS

BUSY_TRIES, BUSY_WAIT_S = 5, 1.0
"""A plugin that somebody is just writing cannot be run; that passes."""


def find(plugin: str, search: str) -> str:
    """The plugin's file in one of the directories of `search` (CNI_PATH). Raises LookupError."""
    paths = search.split(":") if search else []
    if not plugin:
        raise LookupError("no plugin name provided")
    if "/" in plugin:
        raise LookupError(f"invalid plugin name: {plugin}")
    if not paths:
        raise LookupError("no paths provided")
    for path in paths:
        if os.path.isfile(found := os.path.join(path, plugin)):
            return found
    raise LookupError(f'failed to find plugin "{plugin}" in path [{" ".join(paths)}]')


def run(program: str, conf: bytes) -> bytes:
    """Runs a plugin in our environment with `conf` as its input; gives its output. Raises PluginError with its own."""
    with _memory() as given, _memory() as out, _memory() as err:
        given.write(conf)
        given.seek(0)
        try:
            status = os.waitpid(_spawn(program, (given, out, err)), 0)[1]
            how = _ended(os.waitstatus_to_exitcode(status))
        except OSError as error:
            how = f"fork/exec {program}: {reason(error)}"
        out.seek(0)
        err.seek(0)
        said, complaint = out.read(), err.read()
    sys.stderr.buffer.write(complaint)
    if how:
        raise _failure(said, complaint, how)
    return said


def versions(program: str) -> list[str]:
    """The versions of the specification that both a plugin and we speak, oldest first; none if it does not say."""
    command = os.environ.get("CNI_COMMAND", "")
    os.environ["CNI_COMMAND"] = "VERSION"
    try:
        supported = jsontext.members(run(program, b'{"cniVersion":"1.0.0"}')).get("supportedVersions")
    except (PluginError, ValueError):
        return []
    finally:
        os.environ["CNI_COMMAND"] = command
    return [it for it in VERSIONS if isinstance(supported, list) and it in supported]


def _memory() -> io.FileIO:
    return io.FileIO(os.memfd_create("cni"), "w+")


def _spawn(program: str, streams: tuple[io.FileIO, ...], tries: int = BUSY_TRIES) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, stream.fileno(), number) for number, stream in enumerate(streams)]
    reset = [signal.SIGPIPE, signal.SIGXFSZ]  # Python ignores them, and a child would inherit that
    try:
        return os.posix_spawn(program, [program], os.environ, file_actions=actions, setsigdef=reset)
    except OSError as error:
        if error.errno != errno.ETXTBSY or tries == 1:
            raise
    time.sleep(BUSY_WAIT_S)
    return _spawn(program, streams, tries - 1)


def _ended(code: int) -> str:
    """How it failed, empty if it did not."""
    if code < 0:
        return f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"
    return f"exit status {code}" if code else ""


def _failure(said: bytes, complaint: bytes, how: str) -> PluginError:
    """The error the plugin has printed, or one that says what it did instead."""
    if not said:
        if not complaint:
            return PluginError(0, f"netplugin failed with no error message: {how}")
        return PluginError(0, f"netplugin failed: {_quoted(complaint)}")
    try:
        return _shown(jsontext.members(said))
    except ValueError as error:
        words = f"netplugin failed but error parsing its diagnostic message {_quoted(said)}: {error}"
        return PluginError(0, words)


def _shown(error: dict[str, object]) -> PluginError:
    code, msg, details = error.get("code") or 0, error.get("msg") or "", error.get("details") or ""
    if isinstance(code, int) and isinstance(msg, str) and isinstance(details, str):
        return PluginError(code, msg, details)
    raise ValueError("expected a number as code and texts as msg and details")


def _quoted(text: bytes) -> str:
    return json.dumps(text.decode("utf-8", "replace"), ensure_ascii=False)
