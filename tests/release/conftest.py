"""Fixtures of the release tests: what `make release` has made, and roots of a bare Debian where nothing is installed.

Run by `make release-check`, not by `make test`: they fetch a Debian and take minutes. Nothing here may be skipped.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machine import Machine

from udpbackend import __version__

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"


def made(pattern: str) -> Path:
    """The one file of dist/ that a pattern names."""
    found = sorted((ROOT / "dist").glob(pattern))
    assert len(found) == 1, f"dist/{pattern}: found {[it.name for it in found]}; `make release` makes it"
    return found[0]


@pytest.fixture(scope="session")
def wheel() -> Path:
    return made(f"udpbackend-{__version__}-*.whl")


@pytest.fixture(scope="session")
def package() -> Path:
    return made(f"udp-backend_{__version__}_*.deb")


@pytest.fixture(scope="session")
def image() -> Path:
    return made(f"udp-backend_{__version__}_*.oci.tar")


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare Debian with systemd as an archive."""
    archive = tmp_path_factory.mktemp("debian") / "root.tar"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=systemd-sysv,iproute2,iputils-ping,iptables"]
    subprocess.run([*command, SUITE, archive], check=True, stdin=subprocess.DEVNULL, timeout=600)
    return archive


@pytest.fixture
def bare(debian: Path, tmp_path: Path) -> Iterator[Callable[[], Machine]]:
    """Makes a machine of that Debian, which is gone after the test."""
    machines: list[Machine] = []

    def make() -> Machine:
        root = tmp_path / f"root-{len(machines)}"
        root.mkdir()
        subprocess.run(["tar", "--extract", f"--file={debian}", "--numeric-owner", "-C", root], check=True, timeout=120)
        machines.append(Machine(root))
        return machines[-1]

    yield make
    for machine in machines:
        machine.remove()
