"""Which programs on this host may be using what an overlay has made.

Owns the rules by which one is known. Must not know what they use: where one runs, all that could be its is left alone.

VXLAN devices, routes and rules work without a process, so the kernel cannot say whose they are. What can be seen is
whether a program runs that would miss them, in our network namespace: a daemon of ours, flanneld, or k3s, which has
flannel inside. A flanneld that is just between a crash and its restart is not seen; it makes all of it again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
OURS = "udp-backend"
FLANNELS = ("flanneld", "k3s")
"""What their names begin with: flanneld-amd64, k3s-server, k3s-agent."""

FIRST_PIDS = "pid:[4026531836]"
"""The host's own PID namespace (PROC_PID_INIT_INO of linux/proc_ns.h)."""
INITS = ("systemd", "init")
"""First processes of a host that is itself a container."""

SCRIPT_WORDS = 4
"""A script's name is among the first words of its interpreter's command line."""


class Program(NamedTuple):
    """A running overlay."""

    name: str
    pid: int

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def overlays(proc: Path = PROC) -> list[Program]:
    """Those that run in our network namespace, our own daemons first."""
    found = [program for program in _programs(proc) if _is_here(proc, program.pid)]
    return sorted(found, key=lambda program: program.name != OURS)


def in_the_dark(proc: Path = PROC) -> str:
    """Why there may be more than `overlays` sees; empty where it sees all.

    A container with its host's network but PIDs of its own sees its own processes only. Its first process shares the
    network with it, which is how it is known; so does that of a host, but a host has the first PID namespace of the
    kernel, or, being a container itself, an init.
    """
    try:
        if str((proc / "self/ns/pid").readlink()) == FIRST_PIDS:
            return ""
        if (proc / "1/ns/net").readlink() != (proc / "self/ns/net").readlink():
            return ""
        if (proc / "1/comm").read_text(errors="replace").strip() in INITS:
            return ""
    except OSError as error:
        return f"perhaps in use: who runs here cannot be seen: {error.strerror}"
    return "perhaps in use: this container does not see the host's processes"


def overlay_name(comm: str, words: list[str]) -> str | None:
    """The overlay a process is, by its name and its command line; None if it is none. Our sub-commands are none."""
    if comm.startswith(FLANNELS):
        return comm
    if not comm.startswith(OURS) and not Path(words[0]).name.startswith("python"):
        return None
    for place, word in enumerate(words[:SCRIPT_WORDS]):
        if Path(word).name == OURS or (word == "udpbackend" and words[place - 1] == "-m"):
            return OURS if place + 1 == len(words) or words[place + 1].startswith("-") else None
    return None


def _programs(proc: Path) -> Iterator[Program]:
    for folder in proc.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            comm = (folder / "comm").read_text(errors="replace").removesuffix("\n")
            line = (folder / "cmdline").read_text(errors="replace")
        except OSError:
            continue  # it has ended
        if name := overlay_name(comm, line.removesuffix("\0").split("\0")):
            yield Program(name, int(folder.name))


def _is_here(proc: Path, pid: int) -> bool:
    try:
        return os.path.samestat((proc / str(pid) / "ns/net").stat(), (proc / "self/ns/net").stat())
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended, or is a zombie
    except OSError:
        return True  # not ours to see
