"""What a guest is made of: Debian's stock kernel of a series, its modules, and an initramfs with `init`.

Owns the fetching (through apt, unpacked beside the checkout's other builds, never installed) and what is derived from
it; everything is made once and kept. Must not know how a guest is run or what runs in it.
"""

import fcntl
import gzip
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "kernels"
BOOT = ("virtio_pci", "virtio_rng", "virtio_console", "9pnet_virtio", "9p", "overlay")
"""What the initramfs loads: all else is loaded when it is needed, by the guest's own modprobe."""


class GuestError(Exception):
    """A kernel or a program that cannot be fetched; the message says which."""


@dataclass(frozen=True)
class Guest:
    """What is booted, and what its root shows. Paths inside are the guest's own."""

    release: str
    image: Path
    initramfs: Path
    modules: Path
    """What stands in /lib/modules/RELEASE, uncompressed."""
    root: Path = Path("/")
    """A directory of the host."""
    checkout: str = str(HERE.parent.parent)
    python: str = ".venv/bin/python"
    machine: str = "x86_64"


def of_series(series: str) -> Guest:
    """The host under the newest stock kernel of a series like "6.1" that the package lists name."""
    with _alone():
        package = _newest(series)
        unpacked = fetched(package)
        (modules,) = (unpacked / "lib" / "modules").iterdir()
        if not (modules / "modules.dep").exists():
            run("depmod", "-b", str(unpacked), modules.name)
        busybox = fetched("busybox-static") / "bin" / "busybox"
        image = unpacked / "boot" / f"vmlinuz-{modules.name}"
        return Guest(modules.name, image, initramfs(modules, busybox), modules)


@contextmanager
def _alone() -> Iterator[None]:
    """Guests start at the same time, and what they share is made once."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _newest(series: str) -> str:
    """The name of its package. Numbers vanish from the archive, so none is written down anywhere."""
    form = re.compile(rf"linux-image-{re.escape(series)}[-.+][-.+0-9a-z]*-amd64-unsigned")
    for attempt in (1, 2):
        listed = run("apt-cache", "search", "--names-only", f"^linux-image-{series}").splitlines()
        found = [name for name in (line.split()[0] for line in listed) if form.fullmatch(name) and not _flavour(name)]
        if found:
            return max(found, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
        if attempt == 1:
            run("apt-get", "update", "-qq")
    raise GuestError(f"no package of Linux {series} in this system's package lists (apt-cache search linux-image)")


def _flavour(name: str) -> bool:
    """Whether it is not the plain kernel: the cloud's has no 9p, the real-time one is another kernel."""
    return "-cloud-" in name or "-rt-" in name


def fetched(package: str) -> Path:
    """The directory with a package's files."""
    unpacked = BUILD / package
    if unpacked.exists():
        return unpacked
    partly = BUILD / f"{package}.partly"
    shutil.rmtree(partly, ignore_errors=True)
    partly.mkdir(parents=True)
    try:
        run("apt-get", "download", "-qq", package, cwd=partly)
    except GuestError:
        run("apt-get", "update", "-qq")
        run("apt-get", "download", "-qq", package, cwd=partly)
    (archive,) = partly.glob("*.deb")
    run("dpkg-deb", "-x", str(archive), str(partly))
    archive.unlink()
    partly.rename(unpacked)
    return unpacked


def initramfs(modules: Path, busybox: Path) -> Path:
    """Among the modules: busybox, `init`, and the modules that the way to the root needs, in the order they load."""
    made = modules / "initramfs"
    if made.exists() and made.stat().st_mtime > max(path.stat().st_mtime for path in (HERE / "init", Path(__file__))):
        return made
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory)
        for name in ("bin", "dev", "proc", "sys", "host", "memory", "root", "modules"):
            (tree / name).mkdir()
        shutil.copy(busybox, tree / "bin" / "busybox")
        (tree / "bin" / "sh").symlink_to("busybox")
        shutil.copy(HERE / "init", tree / "init")
        (tree / "init").chmod(0o755)
        order = _in_order(modules, BOOT)
        for path in order:
            packed = (modules / path).read_bytes()  # busybox loads no compressed ones
            plain = lzma.decompress(packed) if path.endswith(".xz") else packed
            (tree / "modules" / Path(path).name.removesuffix(".xz")).write_bytes(plain)
        names = "".join(f"{Path(path).name.removesuffix('.xz')}\n" for path in order)
        (tree / "modules" / "order").write_text(names)
        files = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
        archive = subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"], cwd=tree, input=files.encode(), capture_output=True, check=True
        )
        made.write_bytes(gzip.compress(archive.stdout, 1))
    return made


def _in_order(modules: Path, names: tuple[str, ...]) -> list[str]:
    """The files of these modules and of all they need, each after what it needs. A name not found is built in."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {Path(path).name.partition(".")[0].replace("-", "_"): path for path in needs}
    order: dict[str, None] = {}
    for name in names:
        if name in by_name:
            path = by_name[name]
            order.update(dict.fromkeys([*reversed(needs[path]), path]))
    return list(order)


def run(*command: str, cwd: Path | None = None) -> str:
    """What a program prints; GuestError with what it complains about."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GuestError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
