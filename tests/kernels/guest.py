"""What a guest is made of: Debian's stock kernel of a series, its modules, and an initramfs with `init`.

Owns the fetching (through apt, unpacked beside the checkout's other builds, never installed) and what is derived from
it; everything is made once and kept. Must not know how a guest is run or what runs in it.
"""

import gzip
import lzma
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "kernels"
BOOT = ("virtio_pci", "virtio_rng", "9pnet_virtio", "9p", "overlay")
"""What the initramfs loads: all else is loaded when it is needed, by the guest's own modprobe."""


class GuestError(Exception):
    """A kernel or a program that cannot be fetched; the message says which."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted."""

    release: str
    image: Path
    initramfs: Path
    modules: Path
    """What stands in /lib/modules/RELEASE, uncompressed."""


def kernel(series: str) -> Kernel:
    """The newest stock kernel of a series like "6.1" that the package lists name; fetched if it is not here yet."""
    package = _newest(series)
    unpacked = _fetched(package)
    (modules,) = (unpacked / "lib" / "modules").iterdir()
    if not (modules / "modules.dep").exists():
        for packed in list(modules.rglob("*.ko.xz")):  # busybox loads no compressed ones
            packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
            packed.unlink()
        _run("depmod", "-b", str(unpacked), modules.name)
    release = modules.name
    return Kernel(release, unpacked / "boot" / f"vmlinuz-{release}", _initramfs(modules), modules)


def _newest(series: str) -> str:
    """The name of its package. Numbers vanish from the archive, so none is written down anywhere."""
    form = re.compile(rf"linux-image-{re.escape(series)}[-.+][-.+0-9a-z]*-amd64-unsigned")
    for attempt in (1, 2):
        listed = _run("apt-cache", "search", "--names-only", f"^linux-image-{series}").splitlines()
        found = [name for name in (line.split()[0] for line in listed) if form.fullmatch(name) and not _flavour(name)]
        if found:
            return max(found, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
        if attempt == 1:
            _run("apt-get", "update", "-qq")
    raise GuestError(f"no package of Linux {series} in this system's package lists (apt-cache search linux-image)")


def _flavour(name: str) -> bool:
    """Whether it is not the plain kernel: the cloud's has no 9p, the real-time one is another kernel."""
    return "-cloud-" in name or "-rt-" in name


def _fetched(package: str) -> Path:
    """The directory with the package's files."""
    unpacked = BUILD / package
    if unpacked.exists():
        return unpacked
    partly = BUILD / f"{package}.partly"
    shutil.rmtree(partly, ignore_errors=True)
    partly.mkdir(parents=True)
    try:
        _run("apt-get", "download", "-qq", package, cwd=partly)
    except GuestError:
        _run("apt-get", "update", "-qq")
        _run("apt-get", "download", "-qq", package, cwd=partly)
    (archive,) = partly.glob("*.deb")
    _run("dpkg-deb", "-x", str(archive), str(partly))
    archive.unlink()
    partly.rename(unpacked)
    return unpacked


def _initramfs(modules: Path) -> Path:
    """busybox, `init` and the modules that the way to the root needs, in the order in which they load."""
    made = modules.parent.parent.parent / "initramfs.gz"
    if made.exists() and made.stat().st_mtime > (HERE / "init").stat().st_mtime:
        return made
    tree = made.with_suffix("")
    shutil.rmtree(tree, ignore_errors=True)
    for directory in ("bin", "dev", "proc", "sys", "host", "memory", "root", "modules"):
        (tree / directory).mkdir(parents=True)
    shutil.copy(_fetched("busybox-static") / "bin" / "busybox", tree / "bin" / "busybox")
    (tree / "bin" / "sh").symlink_to("busybox")
    shutil.copy(HERE / "init", tree / "init")
    (tree / "init").chmod(0o755)
    needed = _in_order(modules, BOOT)
    for path in needed:
        shutil.copy(modules / path, tree / "modules")
    (tree / "modules" / "order").write_text("".join(f"{Path(path).name}\n" for path in needed))
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    packed = subprocess.run(
        [tree / "bin" / "busybox", "cpio", "-o", "-H", "newc"],
        cwd=tree,
        input=names.encode(),
        capture_output=True,
        check=True,
    )
    made.write_bytes(gzip.compress(packed.stdout, 1))
    return made


def _in_order(modules: Path, names: tuple[str, ...]) -> list[str]:
    """The files of these modules and of all they need, each after what it needs. A name not found is built in."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {Path(path).name.removesuffix(".ko").replace("-", "_"): path for path in needs}
    order: dict[str, None] = {}
    for name in names:
        if name in by_name:
            path = by_name[name]
            order.update(dict.fromkeys([*reversed(needs[path]), path]))
    return list(order)


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GuestError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
