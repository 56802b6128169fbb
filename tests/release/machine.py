"""Machine: a Debian root in a directory, in which commands run and which boots under its own systemd.

Owns the mounts and the container of that root. It must not know what is installed in it.
"""

import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

from bench.lab.netns import Namespace
from bench.lab.wait import LabError, until

BOOT_S = 90.0
COMMAND_S = 300.0
APT = ("apt-get", "-qq", "--yes", "--no-install-recommends")


def run(argv: list[str], *, check: bool = True) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=COMMAND_S, check=False, stdin=subprocess.DEVNULL
    )
    if check and done.returncode:
        raise LabError(f"`{' '.join(argv)}` failed ({done.returncode}): {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


class Machine:
    """One root. `remove` ends what runs in it and deletes it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._boot: subprocess.Popen[bytes] | None = None
        self._clean = ExitStack()

    def run(self, *command: str, check: bool = True) -> str:
        """Runs a command in the root: in its container once it has booted, else with our network and its own /proc."""
        if self._boot is None:
            return run(["unshare", "--mount", "--pid", "--fork", "--mount-proc", f"--root={self.root}",
                        "--", *command], check=check)  # fmt: skip
        return run(["nsenter", f"--target={self._init()}", "--all", "--", *command], check=check)

    def install(self, *packages: str | Path) -> None:
        """Installs packages of Debian by name and files of ours."""
        shutil.copy("/etc/resolv.conf", self.root / "etc/resolv.conf")
        names = []
        for package in packages:
            if isinstance(package, Path):
                shutil.copy(package, self.root / "tmp")
                names.append(f"/tmp/{package.name}")
            else:
                names.append(package)
        self.run("apt-get", "-qq", "update")
        self.run("env", "DEBIAN_FRONTEND=noninteractive", *APT, "install", *names)

    def files(self) -> set[str]:
        """Every path in the root but those of the package manager's own books, logs and run time."""
        theirs = ("proc", "sys", "dev", "run", "tmp", "var/cache", "var/lib/apt", "var/lib/dpkg", "var/log", "var/tmp")
        found = set()
        for at, directories, names in os.walk(self.root):
            here = Path(at).relative_to(self.root)
            directories[:] = [it for it in directories if str(here / it) not in theirs and it != "__pycache__"]
            found |= {str(here / it) for it in (*directories, *names)}
        return found

    def boot(self, namespace: Namespace) -> None:
        """Starts the root's systemd, with that network and /dev/net/tun; returns when it has started all it will."""
        argv = ["systemd-nspawn", "--quiet", f"--directory={self.root}", f"--network-namespace-path={namespace.path}"]
        argv += ["--register=no", "--keep-unit", "--bind=/dev/net/tun", "--console=pipe", "--boot"]
        argv += ["--capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_SYS_NICE,CAP_BPF"]
        self._boot = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until(self._init, BOOT_S, "the container has no init")
        until(self._up, BOOT_S, "systemd has not started all it will")

    def remove(self) -> None:
        if self._boot is not None:
            self._boot.terminate()
            self._boot.wait(60)
        self._clean.close()
        shutil.rmtree(self.root)

    def _init(self) -> int | None:
        assert self._boot is not None
        children = Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def _up(self) -> bool:
        said = self.run("systemctl", "is-system-running", check=False).strip()
        return said in ("running", "degraded")
