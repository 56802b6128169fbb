"""The command `report`, which puts into one file all that a report of a fault needs.

Owns the list of parts, the bound on each and the file. Each part is a command that an operator could type, so that
nothing is in the file that its reader cannot see for himself; one that fails or is missing says so in its place.
Changes nothing on the host. Exit status: 0 written, 1 not written, 2 usage.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from udpbackend import __version__
from udpbackend.commands.parser import Parser
from udpbackend.commands.redact import Redaction
from udpbackend.commands.status import NoAnswerError, ask, given
from udpbackend.errors import HostError
from udpbackend.model import Prefix
from udpbackend.settings import Settings

PART_BYTES = 180_000
"""Of one part: 27 of them stay below the 5 MB that a tracker takes, even if nothing could be compressed."""
LIMIT_S = 30.0
"""For one part."""
LOG_LINES = 2000
LIBRARIES = ("aetcd", "aiohttp", "cffi", "grpcio", "lightkube", "msgspec", "pyroute2", "python-pytun", "uvloop")
SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.all.forwarding",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.netdev_max_backlog",
    "net.bridge.bridge-nf-call-iptables",
)


def run(argv: Sequence[str]) -> int:
    """Collects, writes the file, and says what is in it."""
    options = _parser().parse_args(argv)
    settings = Settings.read(given(vars(options), ("subnet_file", "status_socket"), os.environ))
    target = Path(options.file)
    if target.exists():
        raise HostError(f"cannot write {target}: it exists already")
    told: list[str] = []
    redaction = Redaction(addresses=options.redact, keep=_own(settings))
    with _replacing(target) as out, tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, argv_of in _parts(settings):
            text = redaction.apply(_text(argv_of) if isinstance(argv_of, tuple) else argv_of)
            _add(archive, name, text)
            told.append(f"  {name}")
    print(f"{target}: {target.stat().st_size} bytes, with")
    print("\n".join(told))
    if not options.redact:
        print("public addresses are in it: --redact replaces them")
    return 0


def _parts(settings: Settings) -> Iterator[tuple[str, tuple[str, ...] | str]]:
    """Names of files with their text, or the command whose output they hold."""
    ours = (sys.executable, "-m", "udpbackend")
    asked = f"--status-socket={settings.status_socket}"
    yield "versions.txt", _versions()
    yield "status.json", (*ours, "status", "-o", "json", asked)
    yield "status.txt", (*ours, "status", "-o", "wide", asked)
    yield "doctor.txt", (*ours, "doctor", f"--subnet-file={settings.subnet_file}", asked)
    with suppress(OSError):
        yield "subnet.env", settings.subnet_file.read_text(errors="replace")
    for words in ("-d addr", "-s -d link", "rule", "-6 rule", "route show table all", "-6 route show table all",
                  "neigh", "-s tunnel"):  # fmt: skip
        yield f"ip/{words.replace(' ', '_')}.txt", ("ip", *words.split())
    yield "rules/iptables.txt", ("iptables-save", "-c")
    yield "rules/ip6tables.txt", ("ip6tables-save", "-c")
    yield "rules/nftables.txt", ("nft", "list", "ruleset")
    yield "sockets.txt", ("ss", "-uanmp")
    yield "sysctl.txt", ("sysctl", "--ignore", *SYSCTLS)
    yield "kernel-counters.txt", ("nstat", "-az")
    for link in sorted(name for _, name in socket.if_nameindex())[:20]:
        yield f"offloads/{link}.txt", ("ethtool", "-k", link)
    yield "log.txt", ("journalctl", "--no-pager", "--unit=udp-backend", f"--lines={LOG_LINES}")
    # Counters once more, a while later: what still grows is what is wrong now.
    yield "status-later.json", (*ours, "status", "-o", "json", asked)


def _text(argv: tuple[str, ...]) -> str:
    """What a command prints, and how it ended if not well."""
    shown = " ".join(("udp-backend", *argv[3:]) if argv[0] == sys.executable else argv)
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
        )
    except FileNotFoundError:
        return f"$ {shown}\nnot on this host\n"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"$ {shown}\n{error}\n"
    text = (done.stdout + done.stderr).decode(errors="replace")
    if len(text) > PART_BYTES:
        text = f"[the first {len(text) - PART_BYTES} characters are left out]\n{text[-PART_BYTES:]}"
    if shown.startswith("udp-backend status -o json") and done.returncode in (0, 1):
        return text  # a document stays one
    return f"$ {shown}\n{text}" + (f"[exit status {done.returncode}]\n" if done.returncode else "")


def _versions() -> str:
    lines = [f"udp-backend {__version__}", f"Python {platform.python_version()} {sys.executable}", " ".join(os.uname())]
    with suppress(OSError):
        lines += [Path("/etc/os-release").read_text()]
    lines += [f"uptime {time.clock_gettime(time.CLOCK_BOOTTIME):.0f} s, {os.cpu_count()} processors"]
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            lines.append(f"{name} {metadata.version(name)}")
    return "\n".join(lines) + "\n"


def _own(settings: Settings) -> list[Prefix]:
    """The overlay's networks: whatever they look like, they are no public addresses."""
    try:
        network = ask(settings.status_socket).network
    except NoAnswerError:
        return []
    return [Prefix.parse(it) for it in (network and network.network, network and network.ipv6_network) if it]


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode(errors="replace")
    entry = tarfile.TarInfo(f"udp-backend-report/{name}")
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(data))


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """A file beside the target, readable by its owner alone, that takes its name when all is written."""
    here: Path | None = None
    try:
        with NamedTemporaryFile(dir=target.parent, prefix=".udp-backend-report-", delete=False) as out:
            here = Path(out.name)
            yield out
        here.rename(target)
        here = None
    except OSError as error:
        raise HostError(f"cannot write {target}: {error.strerror}") from error
    finally:
        if here is not None:
            here.unlink()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="udp-backend report",
        description="Puts into one file what a report of a fault needs: status, doctor, links, routes, rules, "
        "offloads, recent log lines, versions. Secrets are left out.",
        epilog="Exit status: 0 written, 1 not written, 2 usage.",
    )
    add = parser.add_argument
    add("file", metavar="FILE.tar.gz", help="where to write it; must not exist")
    add("-redact", "--redact", action="store_true", help="replace public addresses by words, the same in every part")
    add("-subnet-file", "--subnet-file", metavar="FILE", help="the daemon's (default /run/flannel/subnet.env)")
    add("-status-socket", "--status-socket", metavar="FILE", help="the daemon's status socket")
    return parser
