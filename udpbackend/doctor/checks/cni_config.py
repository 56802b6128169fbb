"""Whether the container runtime finds a CNI configuration that it can use, and the programs that it names.

A runtime takes the first usable file of the directory in the order of their names; until there is one, the kubelet
calls its node NotReady. Files that cannot be used before it, or instead of it, are the usual reason.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from udpbackend.cni.request import SUBNET_FILE
from udpbackend.cni.versions import VERSIONS
from udpbackend.doctor.aside import aside
from udpbackend.doctor.facts import CniFolders, Facts
from udpbackend.errors import ConfigError
from udpbackend.findings.finding import Finding, NotChecked, Results, named
from udpbackend.gojson import Fields, decode
from udpbackend.host import cni_programs

OURS = {"flannel", "udp-backend-cni"}
"""Types that mean our plugin."""

INSTALL = "udp-backend install-cni puts the plugin and its configuration in place"


@dataclass(frozen=True, slots=True)
class Config:
    """A file that a runtime can use."""

    path: Path
    plugins: tuple[Fields, ...]
    versions: tuple[str, ...] = ()
    """Of the specification, those that a runtime may choose from."""

    @property
    def types(self) -> list[str]:
        """The programs that its chain begins with."""
        return [plugin.string("type") for plugin in self.plugins]


async def look(facts: Facts) -> Results:
    """The directory of configurations and that of programs."""
    cni = facts.cni
    if not facts.kubernetes and not cni.named and not await aside(_configured)(cni.conf):
        why = f"nothing is configured in {cni.conf}: pods are attached by other means (--cni-conf-dir names another)"
        return [NotChecked(why)]
    return await aside(judge)(cni, facts.settings.subnet_file, kubernetes=facts.kubernetes)


def judge(cni: CniFolders, subnet_file: Path, *, kubernetes: bool) -> list[Finding]:
    """Reads both directories. `subnet_file`: the daemon's."""
    try:
        paths = sorted(path for path in cni.conf.iterdir() if path.suffix in cni_programs.CONFIGURATIONS)
    except OSError as error:
        return [_none(f"{cni.conf}: {error.strerror}")]
    if not paths:
        return [_none(f"{cni.conf} holds no file that ends in {', '.join(sorted(cni_programs.CONFIGURATIONS))}")]
    found: dict[Path, Config | str] = {path: _read(path) for path in paths}
    good = [it for it in found.values() if isinstance(it, Config)]
    bad = [f"{path}: {why}" for path, why in found.items() if isinstance(why, str)]
    findings = []
    if bad:
        findings.append(
            Finding(
                "risk" if isinstance(found[paths[0]], Config) else "down" if not good else "part",
                "a CNI configuration cannot be used" + ("" if good else ", and there is no other: no pod can start"),
                named(bad),
                f"delete what is not wanted; {INSTALL}",
            )
        )
    if good:
        findings += _chosen(good, kubernetes=kubernetes)
        findings += _programs(good[0], cni.programs)
        findings += _versions(good[0], cni.programs)
        findings += _subnet_files(good[0], subnet_file)
    return findings


def _configured(folder: Path) -> bool:
    """Whether there is any configuration; podman, for one, makes the directory for nothing but a lock."""
    try:
        return any(path.suffix in cni_programs.CONFIGURATIONS for path in folder.iterdir())
    except OSError:
        return False


def _none(why: str) -> Finding:
    return Finding("down", "there is no CNI configuration: no pod can start, and the node stays NotReady", why, INSTALL)


def _chosen(good: Sequence[Config], *, kubernetes: bool) -> Iterator[Finding]:
    """Whether the first is the one for the overlay."""
    first = good[0]
    if OURS.intersection(first.types):
        return
    later = next((it for it in good[1:] if OURS.intersection(it.types)), None)
    if later is None and not kubernetes:
        return  # a bridge that somebody has configured with this node's subnet is as good
    hidden = f"{later.path.name} with the overlay's comes after it" if later else "none names the overlay's plugin"
    cure = f"delete {first.path}, if its network is no longer used" + ("" if later else f"; {INSTALL}")
    what = "the container runtime attaches pods to another network than the overlay"
    yield Finding("down", what, f"it takes {first.path} ({', '.join(first.types)}); {hidden}", cure)


def _programs(config: Config, folders: Sequence[Path]) -> Iterator[Finding]:
    needed = cni_programs.needed(config.plugins, OURS)
    missing = [f"{it} {why}" for it in needed if (why := _unusable(it, folders))]
    if missing:
        where = ":".join(map(str, folders))
        yield Finding(
            "down",
            "a program that the CNI configuration names is missing: no pod can start",
            f"{config.path} names {', '.join(needed)}; in {where}: {named(missing)}",
            f"{INSTALL}; bridge, host-local, portmap and the like are in the package containernetworking-plugins "
            "(Debian has them in /usr/lib/cni: link them, or tell the runtime)",
        )


def _versions(config: Config, folders: Sequence[Path]) -> Iterator[Finding]:
    """Whether each program speaks the version that a runtime may choose; what does not say is not judged."""
    asked = max(config.versions, key=VERSIONS.index, default=None)
    if asked is None:
        return
    older = {}
    for name in cni_programs.needed(config.plugins, OURS):
        path = cni_programs.find(name, folders)
        spoken = path and cni_programs.versions(path)
        if spoken and asked not in spoken:
            older[path] = max((it for it in spoken if it in VERSIONS), key=VERSIONS.index, default="none")
    if older:
        sure = all(asked == it for it in config.versions)
        yield Finding(
            "down" if sure else "risk",
            f"the CNI configuration {'asks for' if sure else 'offers'} version {asked}, which not all of its programs "
            f"speak: no pod can start{'' if sure else ' where the runtime takes it'}",
            f"{config.path}; {named([f'{path} speaks {newest} at most' for path, newest in older.items()])}",
            f"newer plugins (1.1.0 since containernetworking-plugins 1.6), or a smaller cniVersion there; {INSTALL}, "
            "with the versions that all of them speak",
        )


def _subnet_files(config: Config, subnet_file: Path) -> Iterator[Finding]:
    for plugin in config.plugins:
        reads = plugin.string("subnetFile") or SUBNET_FILE
        if plugin.string("type") in OURS and Path(reads) != subnet_file:
            yield Finding(
                "part",
                "the CNI plugin reads another subnet file than the daemon writes",
                f"{config.path} says {reads}, the daemon has {subnet_file}",
                f'add "subnetFile": "{subnet_file}" to the plugin there, or give the daemon --subnet-file={reads}',
            )


def _read(path: Path) -> Config | str:
    """The file, or why it cannot be used."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "it is not a file"
        data = path.read_bytes()
    except FileNotFoundError:
        return f"a link that leads nowhere, to {path.readlink()}" if path.is_symlink() else "it has just gone"
    except OSError as error:
        return error.strerror or str(error)
    try:
        return _parse(path, data)
    except ConfigError as error:
        return str(error)


def _parse(path: Path, data: bytes) -> Config:
    if not data.strip():
        raise ConfigError("it is empty")
    document = Fields(decode(data))
    plugins = document.raw("plugins") if path.suffix == ".conflist" or "plugins" in document else [decode(data)]
    if not isinstance(plugins, list) or not plugins:
        raise ConfigError("it names no plugins")
    config = Config(path, tuple(Fields(plugin, "plugins") for plugin in plugins), _choice(document))
    if not all(config.types):
        raise ConfigError("a plugin has no type")
    return config


def _choice(document: Fields) -> tuple[str, ...]:
    """`cniVersion`, and what newer runtimes may take in its place. Versions that nobody here knows are passed over."""
    listed = document.raw("cniVersions")
    given = [document.string("cniVersion"), *(listed if isinstance(listed, list) else [])]
    return tuple(it for it in given if it in VERSIONS)


def _unusable(program: str, folders: Sequence[Path]) -> str:
    """Why none of the folders has it; empty if one has."""
    why = "is not there"
    for folder in folders:
        path = folder / program
        if path.is_symlink() and not path.exists():
            why = f"is a link that leads nowhere, to {path.readlink()}"
        elif path.exists() and not (path.is_file() and os.access(path, os.X_OK) and path.stat().st_size):
            why = "is no program that can be run"
        elif path.exists():
            return ""
    return why
