"""A guest for another processor: a root of Debian's arm64 packages with this checkout in it, and their stock kernel.

Owns that root. Nothing of it can run here, so packages are unpacked and not configured, libraries come as wheels, and
what is C is compiled by a cross compiler. Must not know how a guest is run.
"""

import shutil
import sys
import tarfile
import tomllib
from pathlib import Path

from guest import BUILD, HERE, Guest, initramfs, run

CHECKOUT = HERE.parent.parent
ROOT = BUILD / "arm64"
PACKAGES = "python3 iproute2 iputils-ping iperf3 kmod libpython3.11-dev busybox-static linux-image-arm64"
SITE = "usr/lib/python3/dist-packages"
TAGS = [word for glibc in ("2_17", "2_28") for word in ("--platform", f"manylinux_{glibc}_aarch64")]
TESTS = ("pytest", "pytest-asyncio", "pytest-timeout", "hypothesis")
PROGRAM = "#!/usr/bin/python3\nimport sys\nfrom udpbackend.cli import main\nsys.exit(main())\n"


def guest() -> Guest:
    """The root is made once; the checkout in it anew each time."""
    if not ROOT.exists():
        _make(ROOT.with_name("arm64.partly")).rename(ROOT)
    _checkout(ROOT)
    (modules,) = (ROOT / "lib" / "modules").iterdir()
    release = modules.name
    made = initramfs(modules, ROOT / "bin" / "busybox")
    image = ROOT / "boot" / f"vmlinuz-{release}"
    return Guest(release, image, made, modules, ROOT, "/udpbackend", "/usr/bin/python3", "aarch64")


def _make(root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    packages = ",".join(PACKAGES.split())
    run(
        *("mmdebstrap", "--quiet", "--arch=arm64", "--variant=extract"),
        *("--include=?essential", f"--include={packages}", "bookworm", str(root)),
    )
    shutil.copy(root / "usr/share/base-passwd/passwd.master", root / "etc/passwd")
    shutil.copy(root / "usr/share/base-passwd/group.master", root / "etc/group")
    (modules,) = (root / "lib" / "modules").iterdir()
    run("depmod", "-b", str(root), modules.name)
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wheels = [name for name in project["dependencies"] if not name.startswith("python-pytun")]
    wheels += [
        name for name in project["optional-dependencies"]["dev"] if name.startswith(TESTS) and "xdist" not in name
    ]
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(
        *(*pip, "install", "--quiet", "--target", str(root / SITE), "--only-binary=:all:"),
        *("--python-version=3.11", "--implementation=cp", *TAGS, *wheels),
    )
    _pytun(root, pip)
    (root / SITE / "checkout.pth").write_text("/udpbackend\n")
    about = root / SITE / f"udpbackend-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: udpbackend\nVersion: {project['version']}\n")
    program = root / "usr/bin/udp-backend"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return root


def _pytun(root: Path, pip: tuple[str, ...]) -> None:
    """The one library without a wheel for arm64."""
    there = root / "usr/src"
    there.mkdir(exist_ok=True)
    run(*pip, "download", "--quiet", "--no-deps", "--no-binary=:all:", "python-pytun==2.4.1", "--dest", str(there))
    (archive,) = there.glob("python-pytun-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(there, filter="data")
    source = there / archive.name.removesuffix(".tar.gz") / "pytun.c"
    _compile(root, root / SITE / "pytun.abi3.so", str(source))


def _compile(root: Path, made: Path, *arguments: str) -> None:
    headers = [f"-I{root / 'usr/include/python3.11'}", f"-I{root / 'usr/include'}"]
    run("aarch64-linux-gnu-gcc", "-shared", "-fPIC", "-O2", *headers, *arguments, "-pthread", "-o", str(made))


def _checkout(root: Path) -> None:
    """The packages and tests of this checkout, the extension compiled for the guest, and C tests that need a kernel."""
    there = root / "udpbackend"
    shutil.rmtree(there, ignore_errors=True)
    for name in ("udpbackend", "bench", "tests"):
        shutil.copytree(CHECKOUT / name, there / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "results"))
    shutil.copy(CHECKOUT / "pyproject.toml", there)
    for program in BUILD.with_name("check").glob("aarch64/run/plain_*"):
        if not program.suffix:
            shutil.copy(program, there)
    interface = there / "interface.c"
    code = f"import build_ffi; build_ffi.ffibuilder.emit_c_code({str(interface)!r})"
    run(sys.executable, "-c", code, cwd=CHECKOUT / "native")
    flags = (CHECKOUT / "native/flags.txt").read_text().split()
    sources = [str(path) for path in sorted((CHECKOUT / "native").glob("*.c"))]
    limited = f"-DPy_LIMITED_API={0x030B0000:#x}"
    native = f"-I{CHECKOUT / 'native'}"
    _compile(root, there / "udpbackend/_native.abi3.so", *flags, native, limited, str(interface), *sources)
