"""The plugin's one file: what it needs, which Pythons it takes, and that it is found out where there is none."""

import ast
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from udpbackend import __version__
from udpbackend.cni import bundle
from udpbackend.cni.plugin import version_text

SOURCES = sorted(bundle.PACKAGE.glob("*.py"))
HERE = f"{Path(sys.executable).parent}:/usr/bin:/bin"
SLOW = {"typing", "dataclasses", "subprocess", "argparse", "pathlib", "inspect", "logging", "socket", "zipfile"}


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "a b" / "flannel"
    path.parent.mkdir()
    path.write_bytes(bundle.build(__version__))
    path.chmod(0o755)
    return path


def run(program, path, **environ):
    done = subprocess.run(
        [program], env={"PATH": path, **environ}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_it_stands_alone(program):
    """Run from another place, with the interpreter's bare libraries: no site-packages, no package of ours."""
    assert run(program, HERE, CNI_COMMAND="VERSION") == (0, version_text(), "")
    assert run(program, HERE)[2].startswith(f"CNI Plugin flannel version {__version__}+udp-backend ")
    status, out, _ = run(program, HERE, CNI_COMMAND="STATUS", CNI_PATH="/x")
    assert (status, json.loads(out)["code"]) == (1, 6)


def test_the_entry_point_is_the_same_program():
    console = Path(sys.executable).with_name("udp-backend-cni")
    assert run(console, HERE, CNI_COMMAND="VERSION") == (0, version_text(), "")
    assert run(console, HERE)[2].startswith(f"CNI Plugin flannel version {__version__}+udp-backend ")


def test_it_depends_on_the_sources_and_the_version_alone():
    assert bundle.build("1") == bundle.build("1")
    assert bundle.build("1") != bundle.build("2")


def test_it_holds_all_but_what_makes_it():
    archive = zipfile.ZipFile(io.BytesIO(bundle.build("1")))
    assert archive.testzip() is None
    ours = {f"udpbackend/cni/{path.name}" for path in SOURCES if path.name not in ("__main__.py", "bundle.py")}
    assert set(archive.namelist()) == ours | {"__main__.py", "udpbackend/__init__.py"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_python_3_9_can_read_it(source):
    ast.parse(source.read_text(), feature_version=(3, 9))


def test_any_python_3_can_read_where_it_begins():
    """With a syntax error there, one that is too old could not say so."""
    ast.parse((bundle.PACKAGE / "__main__.py").read_text(), feature_version=(3, 4))


@pytest.mark.parametrize("command", ["VERSION", "STATUS"])
def test_it_loads_nothing_that_is_slow_or_not_in_the_standard_library(program, command):
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", program],
        env={"CNI_COMMAND": command, "CNI_PATH": "/x"},
        input='{"name":"n","cniVersion":"1.1.0"}',
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (command == "STATUS"), "there is no subnet file"
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()[1:]}
    assert "udpbackend" in loaded
    assert not loaded & SLOW
    assert not {name for name in loaded - {"udpbackend"} if name not in sys.stdlib_module_names}
    assert ("json" in loaded) is (command == "STATUS")


def test_without_a_python_the_runtime_is_told(program, tmp_path):
    """The shell is found by its own path, so this PATH can be truly empty."""
    (tmp_path / "empty").mkdir()
    status, out, err = run(program, str(tmp_path / "empty"), CNI_COMMAND="ADD")
    assert (status, err) == (1, "")
    assert json.loads(out)["code"] == 999
    assert "needs python3 3.9 or newer on this host: there is none on its PATH" in json.loads(out)["msg"]
    assert out == json.dumps(json.loads(out), indent=4)


def test_an_older_python_is_told_so(program, tmp_path):
    """Played by a newer one that says it is 3.8."""
    code = (
        "import runpy, sys; sys.version_info = (3, 8, 18, 'final', 0); runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    old = tmp_path / "python3"
    old.write_text(f'#!/bin/sh\n[ "$1 $2" = "-I -S" ] || exit 9\nexec {sys.executable} -I -S -c "{code}" "$3"\n')
    old.chmod(0o755)
    status, out, err = run(program, f"{tmp_path}:/usr/bin:/bin", CNI_COMMAND="ADD")
    found = json.loads(out)
    assert (status, err, found["code"]) == (1, "", 999)
    assert " needs python3 3.9 or newer on this host: /" in found["msg"]
    assert found["msg"].endswith(" is 3.8")


@pytest.mark.parametrize("command", ["ADD", "DEL", "STATUS"])
def test_a_python_without_half_of_its_library_is_told_so(program, tmp_path, command):
    """As in Debian's python3-minimal, which has no json."""
    code = "import runpy, sys; sys.modules['json'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    minimal = tmp_path / "python3"
    minimal.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -c "{code}" "$3"\n')
    minimal.chmod(0o755)
    status, out, err = run(program, f"{tmp_path}:/usr/bin:/bin", CNI_COMMAND=command)
    found = json.loads(out)
    assert (status, err, found["code"]) == (1, "", 999)
    assert found["msg"].startswith("the CNI plugin of udp-backend needs the whole standard library on this host: /")
    assert " lacks json " in found["msg"]
    assert out == json.dumps(found, indent=4)
