"""`udp-backend install-cni`: what it puts where, what it refuses first, and what it leaves if killed."""

import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from udpbackend import __version__
from udpbackend.cni import bundle
from udpbackend.cni.versions import VERSIONS
from udpbackend.commands import install_cni
from udpbackend.errors import ConfigError, HostError, UsageError

FLANNELS = {
    "name": "cbr0",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
"""What flannel's own manifest installs."""
PROGRAM = bundle.build(__version__)


@pytest.fixture(autouse=True)
def _plain(monkeypatch, tmp_path):
    """No variables of the daemon, no configuration of this machine, the tests' own Python first."""
    for name in [name for name in os.environ if name.startswith("FLANNELD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(install_cni, "CONF_FILE", tmp_path / "absent.json")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    before = os.umask(0o077)
    yield
    os.umask(before)


class Host:
    """Two directories, and the files that belong there."""

    def __init__(self, folder):
        self.folder = folder
        self.plugin = folder / "opt" / "bin" / "flannel"
        self.conf = folder / "net.d" / "10-flannel.conflist"
        self.source = folder / "cni-conf.json"

    def argv(self, *more, source=True):
        argv = ["--cni-bin-dir", str(self.plugin.parent), f"--cni-conf-dir={self.conf.parent}"]
        return [*argv, *(["-conf-file", str(self.source)] if source else []), *more]

    def run(self, *more, source=True):
        return install_cni.run(self.argv(*more, source=source))

    def give(self, document):
        self.source.write_text(document if isinstance(document, str) else json.dumps(document))

    def files(self):
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if not path.is_dir())


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def test_both_files_stand_and_are_said(host, capsys):
    host.give(FLANNELS)
    assert host.run() == 0
    assert capsys.readouterr().out == f"installed {host.plugin}\ninstalled {host.conf}\n"
    assert host.plugin.read_bytes() == PROGRAM
    assert host.conf.read_bytes() == host.source.read_bytes()
    assert (mode(host.plugin), mode(host.conf)) == (0o755, 0o644)
    assert host.files() == ["cni-conf.json", "net.d/10-flannel.conflist", "opt/bin/flannel"]


def speak(host, *versions, names=("bridge", "host-local", "portmap")):
    """The plugins of others, which say that they speak these versions."""
    host.plugin.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = host.plugin.with_name(name)
        path.write_text(f"#!/bin/sh\necho '{json.dumps({'supportedVersions': versions})}'\n")
        path.chmod(0o755)


def test_without_a_configuration_the_stock_one_stands(host, capsys):
    """Nobody can tell which versions the plugins speak that are not there yet: what is left is flannel's."""
    assert host.run(source=False) == 0
    assert json.loads(host.conf.read_text()) == FLANNELS
    assert capsys.readouterr().err == (
        f"left out of cniVersions: 0.3.1, 0.4.0, 1.0.0, 1.1.0: {host.plugin.parent} has no bridge or host-local or "
        "portmap that tells its own\n"
    )


@pytest.mark.parametrize("newest", [4, 5, 6, 7])
def test_a_runtime_may_choose_the_versions_that_all_plugins_speak(host, newest, capsys):
    speak(host, *VERSIONS)
    speak(host, *VERSIONS[:newest], names=["portmap"])
    assert host.run(source=False) == 0
    offered = json.loads(host.conf.read_text()).pop("cniVersions")
    assert offered == list(VERSIONS[3:newest])
    assert capsys.readouterr().err.count("left out of cniVersions: ") == (newest < 7)
    assert json.loads(host.conf.read_text()) == FLANNELS | {"cniVersions": offered}


def test_a_configuration_that_offers_what_all_speak_is_installed_as_it_is(host, capsys):
    host.give(json.dumps(FLANNELS | {"cniVersions": ["0.3.1", "1.0.0"]}, indent=7))
    speak(host, "0.3.1", "1.0.0")
    assert host.run() == 0
    assert host.conf.read_bytes() == host.source.read_bytes()
    speak(host, "0.3.1", names=["bridge"])
    assert host.run("--print") == 0
    assert '"cniVersions": [\n    "0.3.1"\n  ]' in capsys.readouterr().out


def test_under_its_own_name(host):
    assert host.run("--name=udp-backend-cni", "--conf-name=05-net.conflist", source=False) == 0
    assert host.plugin.with_name("udp-backend-cni").exists()
    stood = json.loads(host.conf.with_name("05-net.conflist").read_text())
    assert stood["plugins"][0]["type"] == "udp-backend-cni"


def test_variables_stand_in_for_flags(host, monkeypatch):
    host.give(FLANNELS)
    monkeypatch.setenv("FLANNELD_CNI_BIN_DIR", str(host.plugin.parent))
    monkeypatch.setenv("FLANNELD_CNI_CONF_DIR", "/nowhere")
    monkeypatch.setenv("FLANNELD_CONF_FILE", str(host.source))
    assert install_cni.run(["--cni-conf-dir", str(host.conf.parent)]) == 0
    assert host.files() == ["cni-conf.json", "net.d/10-flannel.conflist", "opt/bin/flannel"]


def test_print_changes_nothing(host, capsys):
    host.give(FLANNELS)
    assert host.run("--print") == 0
    out = capsys.readouterr().out
    assert out == f"{host.plugin}: {len(PROGRAM)} bytes\n{host.conf}:\n{json.dumps(FLANNELS)}\n"
    assert host.files() == ["cni-conf.json"]


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "empty", "busy"])
def test_what_stands_there_is_replaced_and_never_written_into(host, kind, tmp_path):
    host.give(FLANNELS)
    target = tmp_path / "target"
    for path in (host.plugin, host.conf):
        path.parent.mkdir(parents=True)
        if kind == "dangling":
            path.symlink_to(tmp_path / "none")
            continue
        target.write_text("" if kind == "empty" else "old")
        path.symlink_to(target) if kind == "link" else shutil.copy(target, path)
    shutil.copy("/bin/sleep", host.plugin) if kind == "busy" else None
    running = subprocess.Popen([host.plugin, "60"]) if kind == "busy" else None
    try:
        assert host.run() == 0
    finally:
        if running:
            running.kill()
            running.wait()
    assert not host.plugin.is_symlink()
    assert not host.conf.is_symlink()
    assert (host.plugin.read_bytes(), host.conf.read_bytes()) == (PROGRAM, host.source.read_bytes())
    assert not (tmp_path / "none").exists()
    if kind == "link":
        assert target.read_text() == "old"


def test_again_is_fine_and_what_a_killed_install_left_goes(host):
    host.give(FLANNELS)
    host.run()
    for path in (host.plugin, host.conf):
        path.with_name(f".{path.name}.new").write_text("half")
    assert host.run() == 0
    assert host.files() == ["cni-conf.json", "net.d/10-flannel.conflist", "opt/bin/flannel"]


BAD = [
    ("", "not valid JSON: line 1 column 1"),
    ('{"name": "cbr0"', "not valid JSON: line 1 column 16"),
    ("[]", "expected an object, got []"),
    ({**FLANNELS, "name": ""}, 'name: expected the name of a network, like cbr0, got ""'),
    ({**FLANNELS, "name": 7}, "name: expected the name of a network, like cbr0, got 7"),
    ({**FLANNELS, "name": "a b"}, 'name: expected the name of a network, like cbr0, got "a b"'),
    ({**FLANNELS, "cniVersion": "9.9.9"}, "cniVersion: expected one of 0.1.0, "),
    ({**FLANNELS, "cniVersions": "1.0.0"}, 'cniVersions: expected a list of versions, got "1.0.0"'),
    ({**FLANNELS, "cniVersions": [1]}, "cniVersions: expected a list of versions, got [1]"),
    ({"name": "n", "type": "flannel"}, "plugins: expected a list of objects, got null"),
    ({**FLANNELS, "plugins": []}, "plugins: expected a list of objects, got []"),
    ({**FLANNELS, "plugins": ["flannel"]}, 'plugins: expected a list of objects, got ["flannel"]'),
    ({"name": "n", "Plugins": FLANNELS["plugins"]}, "plugins: expected a list of objects, got null"),
    (
        {**FLANNELS, "plugins": [{"type": "bridge"}, {}]},
        'plugins: expected one of type flannel, got ["bridge", null]',
    ),
    ({**FLANNELS, "plugins": [{"type": "flannel", "delegate": 7}]}, "delegate: expected an object, got 7"),
    (
        {**FLANNELS, "plugins": [{"type": "flannel", "delegate": {"ipam": {}}}]},
        "'delegate' dictionary must not have 'ipam' field",
    ),
]


@pytest.mark.parametrize(("document", "words"), BAD)
def test_a_wrong_configuration_is_refused_before_anything_is_changed(host, document, words):
    host.give(document)
    with pytest.raises(ConfigError) as caught:
        host.run()
    assert str(caught.value).startswith(f"{host.source}: {words}")
    assert host.files() == ["cni-conf.json"]
    assert not host.plugin.parent.exists()


def test_a_configuration_that_is_asked_for_has_to_be_there(host):
    with pytest.raises(HostError, match=f"cannot read the CNI configuration {host.source}: No such file"):
        host.run()
    host.source.symlink_to("none")
    with pytest.raises(HostError, match="No such file"):
        host.run()
    assert host.files() == ["cni-conf.json"]


def test_a_dangling_link_where_it_is_looked_for_is_no_absence(host, monkeypatch):
    host.source.symlink_to("none")
    monkeypatch.setattr(install_cni, "CONF_FILE", host.source)
    with pytest.raises(HostError, match="cannot read the CNI configuration"):
        host.run(source=False)


@pytest.mark.parametrize(
    "argv",
    [
        ["--frobnicate"],
        ["here"],
        ["--name"],
        ["--name", "a/b"],
        ["--name", ".."],
        ["--name", "-x"],
        ["--conf-name", "10-flannel.conf"],
        ["--conf-name", "x/10.conflist"],
        ["--conf-name", ".conflist"],
    ],
)
def test_usage_errors(host, argv):
    with pytest.raises(UsageError):
        host.run(*argv, source=False)
    assert host.files() == []


def test_a_directory_in_the_way_is_refused_before_anything_is_changed(host):
    host.conf.mkdir(parents=True)
    with pytest.raises(HostError, match=f"cannot install {host.conf}: it is a directory"):
        host.run(source=False)
    assert host.files() == []


@pytest.mark.parametrize("above", [False, True], ids=["itself", "above it"])
def test_a_directory_that_is_a_dangling_link_is_named_and_left_alone(host, above):
    link = host.plugin.parent.parent if above else host.plugin.parent
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("gone")
    with pytest.raises(HostError) as caught:
        host.run(source=False)
    assert str(caught.value) == f"cannot install {host.plugin}: {link} is a link that leads nowhere, to gone"
    assert host.files() == [str(link.relative_to(host.folder))]


def test_a_place_that_cannot_be_written_is_found_before_the_plugin_is_replaced(host):
    host.plugin.parent.mkdir(parents=True)
    host.plugin.write_text("old")
    host.conf.parent.write_text("no directory")
    with pytest.raises(HostError, match=f"cannot install {host.conf}: "):
        host.run(source=False)
    assert host.plugin.read_text() == "old"
    assert host.files() == ["net.d", "opt/bin/flannel"]


def test_a_plugin_that_does_not_run_here_is_not_installed(host, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(HostError, match=r"(?s)does not answer as it should, status 1: .* needs python3 3\.9") as caught:
        host.run(source=False)
    assert str(host.plugin.parent) in str(caught.value)
    assert host.files() == []


def test_a_plugin_that_never_answers_is_not_installed(host, monkeypatch):
    monkeypatch.setattr(bundle, "build", lambda _: b"#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(install_cni, "VERSION_S", 0.2)
    with pytest.raises(HostError, match=r"has not answered within 0\.2 s"):
        host.run(source=False)
    assert host.files() == []


def test_what_cannot_be_executed_is_not_installed(host, monkeypatch):
    monkeypatch.setattr(bundle, "build", lambda _: b"#!/no/such/shell\n")
    with pytest.raises(HostError, match=r"the plugin cannot be run in .*: No such file"):
        host.run(source=False)
    assert host.files() == []


def test_a_full_disk_leaves_what_was_there(host, monkeypatch):
    host.run(source=False)
    host.plugin.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError, match=f"cannot install {host.plugin}: No space left on device"):
        host.run(source=False)
    assert host.plugin.read_text() == "old"
    assert host.files() == ["net.d/10-flannel.conflist", "opt/bin/flannel"]


def test_it_reads_back_what_it_has_written(host, monkeypatch):
    replace = Path.replace

    def corrupt(path, target):
        replace(path, target)
        Path(target).write_text("#!/bin/sh\n")

    monkeypatch.setattr(Path, "replace", corrupt)
    with pytest.raises(HostError, match="does not hold what was installed"):
        host.run(source=False)


def test_two_installs_at_once_do_not_mix(host):
    host.plugin.parent.mkdir(parents=True)
    folder = os.open(host.plugin.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(HostError, match=f"another install is at work in {host.plugin.parent}"):
            host.run(source=False)
    finally:
        os.close(folder)
    assert host.run(source=False) == 0


KILLED = """
import os, sys
from udpbackend.commands import install_cni
EVENTS = ("open", "os.mkdir", "os.remove", "os.chmod", "os.rename", "subprocess.Popen")
left = int(sys.argv[1])

def watch(event, args):
    global left
    if event in EVENTS and sys.argv[2] in str(args):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)

sys.addaudithook(watch)
install_cni.run(sys.argv[3:])
"""
"""Kills itself at the nth thing it is about to do to the host."""


def test_killed_at_any_point_it_leaves_the_old_or_the_new(host):
    host.give(FLANNELS)
    ended, seen = -signal.SIGKILL, set()
    for point in range(100):
        for path in (host.plugin, host.conf):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("old")
        argv = [sys.executable, "-c", KILLED, str(point), str(host.folder), *host.argv()]
        ended = subprocess.run(argv, capture_output=True, check=False).returncode
        found = (host.plugin.read_bytes(), host.conf.read_bytes())
        assert found[0] in (b"old", PROGRAM)
        assert found[1] in (b"old", host.source.read_bytes())
        assert found[0] == PROGRAM or found[1] == b"old"
        seen.add((found[0] == b"old", found[1] == b"old"))
        if ended == 0:
            break
    assert ended == 0
    assert seen == {(True, True), (False, True), (False, False)}
    assert host.files() == ["cni-conf.json", "net.d/10-flannel.conflist", "opt/bin/flannel"]


def test_the_front_door_knows_it(host):
    done = subprocess.run(
        [sys.executable, "-m", "udpbackend", "install-cni", *host.argv("--print", source=False)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.startswith("left out of cniVersions: ")) == (0, True)
    assert done.stdout.startswith(f"{host.plugin}: ")


def test_it_loads_no_part_of_the_daemon():
    code = (
        "import sys, udpbackend.commands.install_cni\n"
        "print({m.partition('.')[0] for m in sys.modules} & {'uvloop', 'aiohttp', 'pyroute2', 'asyncio', 'cffi'})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_a_configuration_that_sorts_before_ours_is_told(tmp_path, capsys):
    host = Host(tmp_path)
    host.conf.parent.mkdir(parents=True)
    for name in ("05-calico.conflist", "10-flannel.conflist", "00-notes.txt", "99-loopback.conf"):
        (host.conf.parent / name).write_text("{}")
    assert host.run(source=False) == 0
    told = capsys.readouterr().err.splitlines()
    assert [it for it in told if it.startswith("warning: 05-calico.conflist in ") and "before 10-flannel" in it]
    (host.conf.parent / "05-calico.conflist").unlink()
    assert host.run(source=False) == 0
    assert "warning" not in capsys.readouterr().err
