"""The command `install-cni`, which puts the CNI plugin and its configuration in place on a host.

Owns what may be installed where, and the order: everything is checked and both files stand complete beside their places
before the first is changed. Whoever looks at any time, a kubelet or the next install after a power cut, finds the old
file or the new one. Knows the plugin only as a file that answers VERSION.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from udpbackend import __version__, gojson
from udpbackend.cni import bundle, delegate
from udpbackend.cni.errors import PluginError
from udpbackend.cni.plugin import version_text
from udpbackend.cni.request import NAME
from udpbackend.cni.versions import VERSIONS
from udpbackend.commands.parser import Parser
from udpbackend.errors import ConfigError, HostError, UsageError
from udpbackend.host import cni_programs

CONF_FILE = Path("/etc/kube-flannel/cni-conf.json")
"""Where a pod of ours finds its ConfigMap."""

VERSIONS_KEY = "cniVersions"
"""What newer runtimes choose from: they take the newest they know. Older ones take `cniVersion`, flannel's."""

STOCK = """\
{{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
  "plugins": [
    {{"type": "{plugin}", "delegate": {{"hairpinMode": true, "isDefaultGateway": true}}}},
    {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
  ]
}}
"""

VERSION_S = 10.0
"""What a busy host may take to start the plugin; it takes some hundredths of a second."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes where."""

    plugin: Path
    conf: Path
    source: Path | None
    """None: the stock configuration."""


def run(argv: Sequence[str]) -> int:
    """Installs both files, or says with --print what it would install."""
    options = _parser().parse_args(argv)
    plan = _plan(options, os.environ)
    conf = _configuration(plan)
    program = bundle.build(__version__)
    if options.print:
        print(f"{plan.plugin}: {len(program)} bytes\n{plan.conf}:\n{conf.decode().rstrip()}")
        return 0
    with ExitStack() as stack:
        plugin = stack.enter_context(Staged(plan.plugin, program, 0o755))
        configuration = stack.enter_context(Staged(plan.conf, conf, 0o644))
        _check_answer(plugin.beside)
        # A kubelet calls its node ready as soon as there is a configuration: the plugin stands first.
        plugin.commit()
        _check_answer(plan.plugin)
        configuration.commit()
    print(f"installed {plan.plugin}\ninstalled {plan.conf}")
    if before := _before(plan.conf):
        text = "a container runtime takes the first that it can use, so it may attach pods to another network"
        print(
            f"warning: {', '.join(before)} in {plan.conf.parent} sort before {plan.conf.name}: {text}", file=sys.stderr
        )
    return 0


def _before(conf: Path) -> list[str]:
    """Other configurations that a runtime comes upon earlier."""
    names = (it.name for it in conf.parent.iterdir() if it.suffix in cni_programs.CONFIGURATIONS)
    return sorted(name for name in names if name < conf.name)


class Staged:
    """A file about to be put in place: complete and on the disk, beside its place under a name that nobody looks at.

    Entering makes it; leaving removes it unless it was committed. Raises HostError.
    """

    def __init__(self, path: Path, data: bytes, mode: int) -> None:
        self.beside = path.with_name(f".{path.name}.new")
        self._path = path
        self._data = data
        self._mode = mode
        self._stack = ExitStack()
        self._folder = -1

    def __enter__(self) -> Self:
        try:
            if self._path.is_dir() and not self._path.is_symlink():
                raise IsADirectoryError(0, "it is a directory, expected a file or nothing")
            _make_folder(self._path.parent)
            with ExitStack() as stack:
                self._folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, self._folder)
                self._lock()
                self.beside.unlink(missing_ok=True)  # of an install that was killed
                stack.callback(self.beside.unlink, missing_ok=True)
                self._write()
                self._stack = stack.pop_all()
        except OSError as error:
            raise self._failed(error) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def commit(self) -> None:
        """Puts it in place of whatever stands there, a link itself and not what it leads to; then reads it back."""
        try:
            self.beside.replace(self._path)
            os.fsync(self._folder)
            same = self._path.read_bytes() == self._data and not self._path.is_symlink()
        except OSError as error:
            raise self._failed(error) from None
        if not same:
            raise HostError(f"{self._path} does not hold what was installed: somebody else writes there too")

    def _lock(self) -> None:
        """One install at a time in a directory, so that the name beside is ours alone."""
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(0, f"another install is at work in {self._path.parent}") from None

    def _write(self) -> None:
        with self.beside.open("xb") as file:
            file.write(self._data)
            os.fchmod(file.fileno(), self._mode)  # whatever the umask is
            file.flush()
            os.fsync(file.fileno())

    def _failed(self, error: OSError) -> HostError:
        return HostError(f"cannot install {self._path}: {error.strerror}")


def _make_folder(folder: Path) -> None:
    for it in (folder, *folder.parents):
        if it.is_symlink() and not it.exists():
            raise FileNotFoundError(0, f"{it} is a link that leads nowhere, to {it.readlink()}")
    folder.mkdir(parents=True, exist_ok=True)


def _check_answer(path: Path) -> None:
    """That the plugin runs here and is the one we built. Raises HostError."""
    try:
        done = subprocess.run(
            [path.absolute()],
            env={**os.environ, "CNI_COMMAND": "VERSION"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_S,
            check=False,
        )
    except OSError as error:
        raise HostError(f"the plugin cannot be run in {path.parent}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"the plugin in {path.parent} has not answered within {VERSION_S:g} s") from None
    if done.returncode or done.stdout != version_text().encode():
        said = (done.stdout + done.stderr).decode(errors="replace").strip()[-500:]
        raise HostError(f"the plugin in {path.parent} does not answer as it should, status {done.returncode}: {said}")


def _configuration(plan: Plan) -> bytes:
    """The configuration to install, checked. Raises HostError and ConfigError."""
    if plan.source is None:
        return _narrowed(STOCK.format(plugin=plan.plugin.name).encode(), plan.plugin)
    try:
        data = plan.source.read_bytes()
    except OSError as error:
        raise HostError(f"cannot read the CNI configuration {plan.source}: {error.strerror}") from None
    try:
        _check_list(data, plan.plugin.name)
        return _narrowed(data, plan.plugin)
    except (ConfigError, PluginError) as error:
        raise ConfigError(f"{plan.source}: {error}") from None


def _narrowed(data: bytes, plugin: Path) -> bytes:
    """Without those of its `cniVersions` that a program it leads to does not speak: a runtime would choose them.

    A program that is not there, or does not say, counts as one that speaks `cniVersion` alone.
    """
    document = gojson.decode(data)
    offered = document.get(VERSIONS_KEY)
    if offered is None:
        return data
    plugins = [gojson.Fields(it, "plugins") for it in document["plugins"]]
    others = [it for it in cni_programs.needed(plugins, {plugin.name}) if it != plugin.name]
    spoken = {it: cni_programs.versions(plugin.parent / it) for it in others}
    kept = [it for it in offered if it in VERSIONS and all(known and it in known for known in spoken.values())]
    if kept == offered:
        return data
    mute = [it for it, known in spoken.items() if known is None]
    why = f": {plugin.parent} has no {' or '.join(mute)} that tells its own" if mute else ""
    print(f"left out of {VERSIONS_KEY}: {', '.join(str(it) for it in offered if it not in kept)}{why}", file=sys.stderr)
    if kept:
        document[VERSIONS_KEY] = kept
    else:
        del document[VERSIONS_KEY]
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _check_list(data: bytes, plugin: str) -> None:
    """Raises ConfigError and PluginError. A runtime takes these keys only as they are written here."""
    document = gojson.decode(data)
    if not isinstance(document, dict):
        raise ConfigError(f"expected an object, got {gojson.shown(document)}")
    name, version, plugins = document.get("name"), document.get("cniVersion", VERSIONS[0]), document.get("plugins")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"name: expected the name of a network, like cbr0, got {gojson.shown(name)}")
    if version not in VERSIONS:
        raise ConfigError(f"cniVersion: expected one of {', '.join(VERSIONS)}, got {gojson.shown(version)}")
    offered = document.get(VERSIONS_KEY)
    if not isinstance(offered, list | None) or not all(isinstance(it, str) for it in offered or ()):
        raise ConfigError(f"{VERSIONS_KEY}: expected a list of versions, got {gojson.shown(offered)}")
    if not isinstance(plugins, list) or not plugins or not all(isinstance(item, dict) for item in plugins):
        raise ConfigError(f"plugins: expected a list of objects, got {gojson.shown(plugins)}")
    types = [item.get("type") for item in plugins]
    if plugin not in types:
        raise ConfigError(f"plugins: expected one of type {plugin}, got {gojson.shown(types)}")
    delegated = plugins[types.index(plugin)].get("delegate")
    if not isinstance(delegated, dict | None):
        raise ConfigError(f"delegate: expected an object, got {gojson.shown(delegated)}")
    delegate.check(delegated)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="udp-backend install-cni",
        description="Puts the CNI plugin and its configuration in place, each complete or not at all. A flag that is "
        "not given is read from the environment: FLANNELD_CNI_BIN_DIR for --cni-bin-dir.",
        epilog="Exit status: 0 both are in place, 1 not, 2 usage.",
    )
    add = parser.add_argument
    add("-cni-bin-dir", "--cni-bin-dir", metavar="DIR", help="for the plugin (default /opt/cni/bin)")
    add("-cni-conf-dir", "--cni-conf-dir", metavar="DIR", help="for the configuration (default /etc/cni/net.d)")
    add("-conf-file", "--conf-file", metavar="FILE", help=f"the configuration (default {CONF_FILE}, else a stock one)")
    add("-conf-name", "--conf-name", metavar="NAME", help="its name there (default 10-flannel.conflist)")
    add("-name", "--name", metavar="NAME", help="the plugin's name there, and its type (default flannel)")
    add("-print", "--print", action="store_true", help="only say what would be installed")
    return parser


def _plan(options: argparse.Namespace, environ: Mapping[str, str]) -> Plan:
    def given(flag: str) -> str | None:
        field = flag.replace("-", "_")
        text: str | None = getattr(options, field)
        return environ.get("FLANNELD_" + field.upper()) if text is None else text

    name, conf_name = given("name") or "flannel", given("conf-name") or "10-flannel.conflist"
    if not NAME.fullmatch(name):
        raise UsageError(f"--name: invalid value {name!r}: expected the plain name of a file, like flannel")
    if not re.fullmatch(NAME.pattern + r"\.conflist", conf_name):
        raise UsageError(f"--conf-name: invalid value {conf_name!r}: expected a name like 10-flannel.conflist")
    source = Path(given("conf-file") or CONF_FILE)
    return Plan(
        Path(given("cni-bin-dir") or "/opt/cni/bin", name),
        Path(given("cni-conf-dir") or "/etc/cni/net.d", conf_name),
        source if given("conf-file") or os.path.lexists(source) else None,
    )
