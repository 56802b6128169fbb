"""deploy/Containerfile: it copies all that is needed, and what its steps install works.

There is no container engine here, so the file is parsed, and the steps that build and install the wheel are executed as
they stand, with directories of ours in place of the image's. The dependencies are this environment's, for nothing may
be downloaded; the image takes them from the package index by the same wheel's metadata.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from udpbackend import __version__
from udpbackend.backends.udp_config import DEFAULT_PORT
from udpbackend.cni.plugin import version_text
from udpbackend.host.firewall_program import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
CONTAINERFILE = ROOT / "deploy" / "Containerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VENV = "/opt/udp-backend"


def parsed():
    """Stages, each a list of an instruction and what follows it."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE)
    stages = []
    for line in filter(None, text.replace("\\\n", " ").splitlines()):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            stages.append([])
        if stages:  # an ARG may stand before the first
            stages[-1].append((instruction, " ".join(rest.split())))
    return stages


BUILD, FINAL = parsed()


def of(stage, instruction):
    return [rest for found, rest in stage if found == instruction]


def installed_packages(stage):
    [line] = [it for it in of(stage, "RUN") if it.startswith("apt-get")]
    words = line.split("apt-get install ")[1].split(" && ")[0].split()
    return {it for it in words if not it.startswith("-")}


def test_both_stages_are_one_plain_image():
    assert of(BUILD, "FROM") == ["${BASE} AS build"]
    assert of(FINAL, "FROM") == ["${BASE}"]
    assert "\nARG BASE=debian:bookworm-slim\n" in CONTAINERFILE.read_text()
    assert PROJECT["requires-python"] == ">=3.11"  # Debian 12 has it


def test_the_programs_we_run_are_in_it():
    assert installed_packages(FINAL) == {*PACKAGES.values(), "python3"}


def test_it_starts_the_program_of_the_virtual_environment():
    [entry] = of(FINAL, "ENTRYPOINT")
    assert json.loads(entry) == ["udp-backend"]
    assert "udp-backend" in PROJECT["scripts"]
    assert of(FINAL, "COPY") == [f"--from=build {VENV} {VENV}"]
    [path] = of(FINAL, "ENV")
    assert path.startswith(f"PATH={VENV}/bin:")


def test_its_port_is_the_backends():
    assert of(FINAL, "EXPOSE") == [f"{DEFAULT_PORT}/udp"]


def test_its_labels_tell_this_version():
    assert f"--build-arg VERSION={__version__} --tag udp-backend:{__version__} ." in CONTAINERFILE.read_text()
    [labels] = of(FINAL, "LABEL")
    found = dict(it.removeprefix("org.opencontainers.image.").split("=", 1) for it in shlex.split(labels))
    assert found["version"] == "${VERSION}"
    assert __version__ == PROJECT["version"]
    assert found["licenses"] == PROJECT["license"]
    assert found["description"] == PROJECT["description"].replace(" for Linux", "")


def test_whatever_we_import_is_installed_with_the_wheel():
    """Directly, or because something that we name needs it."""
    installed, wanted = set(), list(PROJECT["dependencies"])
    while wanted:
        requirement = Requirement(wanted.pop())
        if (name := canonicalize_name(requirement.name)) not in installed and applies(requirement):
            installed.add(name)
            wanted += metadata.requires(name) or ()
    owners = metadata.packages_distributions()
    used = {canonicalize_name(owner) for module in imported() for owner in owners[module]}
    assert used - {"udpbackend"} <= installed


def applies(requirement):
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def imported():
    """The packages that ours import, without the standard library."""
    found = set()
    for path in (ROOT / "udpbackend").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {it.name.partition(".")[0] for it in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names


def test_the_older_iptables_has_its_own_directory():
    [line] = [it for it in of(FINAL, "RUN") if it.startswith("apt-get")]
    assert "mkdir /opt/iptables-legacy" in line
    names = re.search(r"for name in (.*?);", line)[1].split()
    assert {"iptables", "iptables-restore", "ip6tables", "ip6tables-restore"} == set(names)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A directory with the image's virtual environment in `venv` and its wheel in `wheel`."""
    made = tmp_path_factory.mktemp("image")
    source = made / "src"
    source.mkdir()
    for line in of(BUILD, "COPY"):
        *names, to = line.split()
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / to, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            else:
                shutil.copy(ROOT / name, source / to)
    environ = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it the other way round: without isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    for line in of(BUILD, "RUN"):
        if line.startswith("python"):
            command = line.replace(VENV, str(made / "venv")).replace("/wheel", str(made / "wheel"))
            done = subprocess.run(
                ["sh", "-c", command], cwd=source, env=environ, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return made


def run(image, *words, **environ):
    """Runs a program of the image's virtual environment in an environment with nothing of ours."""
    bare = {"PATH": f"{image}/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin", **environ}
    return subprocess.run(words, env=bare, cwd=image, capture_output=True, text=True, timeout=60, check=False)


def test_the_wheel_holds_every_file_of_the_package(image):
    [wheel] = (image / "wheel").iterdir()
    assert wheel.name.startswith(f"udpbackend-{__version__}-cp311-abi3-linux_")
    held = {it for it in zipfile.ZipFile(wheel).namelist() if it.startswith("udpbackend/")}
    source = image / "src"
    files = {str(it.relative_to(source)) for it in (source / "udpbackend").rglob("*") if it.is_file()}
    assert held == files | {"udpbackend/_native.abi3.so"}


def test_the_environment_holds_nothing_else(image):
    [library] = (image / "venv" / "lib").glob("python3*/site-packages")
    assert {it.name.partition("-")[0] for it in library.iterdir()} <= {"udpbackend", "__pycache__"}
    assert {it.name for it in (image / "venv" / "bin").glob("udp-*")} == set(PROJECT["scripts"])


def test_the_front_door_and_the_plugin_need_no_dependency(image):
    assert run(image, "udp-backend", "--version").stderr == f"{__version__}\n"
    helped = run(image, "udp-backend", "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "install-cni" in helped.stdout
    assert run(image, "udp-backend-cni", CNI_COMMAND="VERSION").stdout == version_text()


def test_with_its_dependencies_all_of_it_loads(image):
    [library] = (image / "venv" / "lib").glob("python3*/site-packages")
    theirs = library / "dependencies.pth"
    theirs.write_text(sysconfig.get_path("purelib") + "\n")  # a path added in this way brings no .pth files of its own
    try:
        code = "import udpbackend.daemon, udpbackend._native as n; print(n.__file__)"
        loaded = run(image, "python", "-c", code)
        assert loaded.stdout.startswith(f"{library}/udpbackend/_native"), loaded.stderr
        installed = run(
            image, "udp-backend", "install-cni", f"--cni-bin-dir={image}/bin", f"--cni-conf-dir={image}/conf"
        )
        assert installed.returncode == 0, installed.stderr
        assert run(image, f"{image}/bin/flannel", CNI_COMMAND="VERSION").stdout == version_text()
    finally:
        theirs.unlink()
