"""A daemon that must refuse to start: what it says, and proof that it has changed nothing.

Owns what counts as a trace on a host. Must not know why a start fails: that is the test's business.
"""

import json
import subprocess
from pathlib import Path

from bench.lab.daemon import Overlay, program
from bench.lab.netns import Namespace
from bench.lab.topology import Host

LISTS = (("addr",), ("link",), ("route", "show", "table", "all"), ("rule",))
SETTINGS = ("rp_filter", "accept_local")
START_S = 20.0
"""The longest a start may take to fail, on a busy machine."""
OWN_LINE = "udp-backend: "
CARRIER = {"LOWER_UP", "NO-CARRIER", "RUNNING", "linkdown"}
LOGS = (".out", ".err")
"""Of other programs of the laboratory, which may be writing."""

PRIVATE_MOUNTS = ("unshare", "--mount", "--", "sh", "-ec")
"""Runs a shell script whose mounts nobody else sees; append `SCRIPT; exec "$@"`, a word for $0 and the command."""


def with_mounts(script: str) -> list[str]:
    """What to put before a command that is to see the mounts of a script and to show them to nobody else."""
    return [*PRIVATE_MOUNTS, f'{script}; exec "$@"', "sh"]


def without(*capabilities: str) -> list[str]:
    """What to put before a command that root is to run without these capabilities."""
    dropped = ",".join(f"-{name}" for name in capabilities)
    return ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", "--"]


def traces(namespace: Namespace, directory: Path) -> dict[str, object]:
    """All that a start could leave in a namespace and in a run directory."""
    found: dict[str, object] = {
        " ".join(words): [_lasting(row) for row in json.loads(namespace.run("ip", "-j", *words))] for words in LISTS
    }
    found["settings"] = namespace.call(_settings)
    files = [path for path in sorted(directory.rglob("*")) if path.suffix not in LOGS]
    found["files"] = {str(path): _stamp(path) for path in files}
    return found


def command(overlay: Overlay, host: Host, **flags: object) -> list[str]:
    """The daemon's command line for that host; a flag's name has _ for -, and None leaves it out."""
    chosen = {
        "static_subnets": overlay.lab.directory / "subnets.json",
        "iface": "eth0",
        "subnet_file": overlay.run_directory(host) / "subnet.env",
        **flags,
    }
    return [program(), *(f"--{key.replace('_', '-')}={it}" for key, it in chosen.items() if it is not None)]


def refusal(overlay: Overlay, host: Host, *before: str, status: int = 1, extra: tuple[str, ...] = (), **flags) -> str:
    """Starts a daemon that must end with `status` and without a trace; the one line it ends with, without its name.

    `before`: a program that runs the daemon; `extra`: words behind the flags.
    """
    found = traces(host.namespace, overlay.lab.directory)
    argv = host.namespace.argv([*before, *command(overlay, host, **flags), *extra])
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S, check=False)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    *logged, last = done.stderr.splitlines()
    assert last.startswith(OWN_LINE), done.stderr
    assert not [line for line in logged if "Traceback" in line or line.startswith(OWN_LINE)], done.stderr
    assert status == 1 or not logged, "wrong usage is told before anything is logged"
    for what, now in traces(host.namespace, overlay.lab.directory).items():
        assert now == found[what], f"{what} has changed"
    return last.removeprefix(OWN_LINE)


def _lasting(row: dict[str, object]) -> dict[str, object]:
    """Without what follows from the carrier, of which the kernel tells up to a second later."""
    lasting = {key: value for key, value in row.items() if key not in ("operstate", "qdisc")}
    if isinstance(flags := row.get("flags"), list):
        lasting["flags"] = sorted(set(flags) - CARRIER)
    return lasting


def _settings() -> dict[str, str]:
    root = Path("/proc/sys/net/ipv4/conf")
    return {f"{link.name}/{key}": (link / key).read_text() for link in sorted(root.iterdir()) for key in SETTINGS}


def _stamp(path: Path) -> tuple[object, ...]:
    """A file's identity and state; of a directory only that it is there."""
    seen = path.lstat()
    if path.is_dir():
        return (seen.st_mode,)
    return (seen.st_mode, seen.st_ino, seen.st_size, seen.st_mtime_ns)
