"""The directories of CNI as `doctor` judges them, each fault as files."""

import json
import os
from pathlib import Path

import pytest
from doctored_facts import doctor_facts

from udpbackend.cni.request import SUBNET_FILE
from udpbackend.doctor.checks import cni_config
from udpbackend.doctor.facts import CniFolders
from udpbackend.findings.finding import NotChecked

FLANNEL = {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
NEEDED = ("flannel", "bridge", "host-local", "portmap")


def conflist(*plugins, **more):
    return json.dumps({"name": "cbr0", "cniVersion": "1.0.0", "plugins": list(plugins), **more})


@pytest.fixture
def cni(tmp_path):
    """A host on which all is well."""
    folders = CniFolders(tmp_path / "net.d", (tmp_path / "bin",), named=True)
    folders.conf.mkdir()
    folders.programs[0].mkdir()
    (folders.conf / "10-flannel.conflist").write_text(conflist(FLANNEL, PORTMAP))
    for name in NEEDED:
        program(folders, name)
    return folders


def program(cni, name):
    path = cni.programs[0] / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def judge(cni, *, kubernetes=True):
    return cni_config.judge(cni, Path(SUBNET_FILE), kubernetes=kubernetes)


def only(cni):
    (finding,) = judge(cni)
    return finding


def test_all_is_well(cni):
    assert judge(cni) == judge(cni, kubernetes=False) == []
    (cni.conf / "README").write_text("no configuration")
    assert judge(cni) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("{", "not valid JSON: line 1 column 2"),
        ("[]", "expected an object, got []"),
        ("\0\0\0", "not valid JSON"),
        (conflist(), "it names no plugins"),
        ('{"name": "cbr0", "plugins": "flannel"}', "it names no plugins"),
        (conflist(5), "plugins: expected an object, got 5"),
        (conflist({"name": "x"}), "a plugin has no type"),
        (conflist({"type": 5}), "plugins.type: expected a string, got 5"),
    ],
)
def test_a_file_that_cannot_be_used(cni, content, why):
    path = cni.conf / "10-flannel.conflist"
    path.write_text(content)
    finding = only(cni)
    assert finding.severity == "down"
    assert finding.what == "a CNI configuration cannot be used, and there is no other: no pod can start"
    assert finding.evidence.startswith(f"{path}: {why}")


def test_a_link_that_leads_nowhere(cni):
    path = cni.conf / "10-flannel.conflist"
    path.unlink()
    path.symlink_to("..data/cni-conf.json")
    assert only(cni).evidence == f"{path}: a link that leads nowhere, to ..data/cni-conf.json"


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_what_is_no_file(cni, kind):
    path = cni.conf / "10-flannel.conflist"
    path.unlink()
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    assert only(cni).evidence == f"{path}: it is not a file"


def test_no_configuration_at_all(cni):
    (cni.conf / "10-flannel.conflist").unlink()
    assert only(cni).evidence == f"{cni.conf} holds no file that ends in .conf, .conflist, .json"
    cni.conf.rmdir()
    assert only(cni).evidence == f"{cni.conf}: No such file or directory"
    assert only(cni).severity == "down"


@pytest.mark.parametrize(("name", "severity"), [("05-broken.conf", "part"), ("99-broken.conf", "risk")])
def test_a_broken_file_beside_a_good_one(cni, name, severity):
    (cni.conf / name).write_text("")
    finding = only(cni)
    assert (finding.severity, finding.what) == (severity, "a CNI configuration cannot be used")


def test_another_networks_file_comes_first(cni):
    program(cni, "calico")
    (cni.conf / "05-calico.conflist").write_text(conflist({"type": "calico"}))
    finding = only(cni)
    assert finding.what == "the container runtime attaches pods to another network than the overlay"
    assert finding.evidence == (
        f"it takes {cni.conf}/05-calico.conflist (calico); 10-flannel.conflist with the overlay's comes after it"
    )
    (cni.conf / "10-flannel.conflist").unlink()
    assert "none names the overlay's plugin" in only(cni).evidence
    assert judge(cni, kubernetes=False) == [], "a bridge that somebody has configured by hand is as good"


def test_a_single_plugin_without_a_list(cni):
    (cni.conf / "10-flannel.conflist").unlink()
    (cni.conf / "10-flannel.conf").write_text(json.dumps({"name": "cbr0", **FLANNEL}))
    assert judge(cni) == []


@pytest.mark.parametrize("name", NEEDED)
def test_a_program_that_is_missing(cni, name):
    path = cni.programs[0] / name
    path.unlink()
    assert f"in {cni.programs[0]}: {name} is not there" in only(cni).evidence
    path.symlink_to("/nowhere/at/all")
    assert only(cni).evidence.endswith(f"{name} is a link that leads nowhere, to /nowhere/at/all")
    path.unlink()
    path.write_text("")
    path.chmod(0o755)
    assert only(cni).evidence.endswith(f"{name} is no program that can be run")
    path.write_text("#!/bin/sh\n")
    path.chmod(0o644)
    assert only(cni).evidence.endswith(f"{name} is no program that can be run")


def test_the_delegates_own_programs_are_needed(cni):
    plugin = {"type": "flannel", "delegate": {"type": "macvlan"}, "ipam": {"type": "dhcp"}}
    (cni.conf / "10-flannel.conflist").write_text(conflist(plugin))
    assert "names flannel, macvlan, dhcp; " in only(cni).evidence


def test_programs_in_several_folders(cni, tmp_path):
    (tmp_path / "more").mkdir()
    (cni.programs[0] / "bridge").rename(tmp_path / "more/bridge")
    assert only(cni).severity == "down"
    assert judge(CniFolders(cni.conf, (cni.programs[0], tmp_path / "more"), named=True)) == []


def test_the_plugin_reads_another_subnet_file(cni):
    (cni.conf / "10-flannel.conflist").write_text(conflist({**FLANNEL, "subnetFile": "/run/other/subnet.env"}))
    finding = only(cni)
    assert finding.evidence.endswith(f"says /run/other/subnet.env, the daemon has {SUBNET_FILE}")


async def test_a_host_without_cni_needs_none(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    (gap,) = await cni_config.look(doctor_facts(cni=CniFolders(tmp_path / "net.d")))
    assert isinstance(gap, NotChecked)
    (finding,) = await cni_config.look(doctor_facts(cni=CniFolders(tmp_path / "net.d", named=True)))
    assert finding.severity == "down"


@pytest.mark.parametrize(
    ("more", "severity", "what"),
    [
        (
            {"cniVersion": "1.1.0"},
            "down",
            "asks for version 1.1.0, which not all of its programs speak: no pod can start",
        ),
        (
            {"cniVersions": ["1.1.0", "0.4.0", "9.9.9"]},
            "risk",
            "offers version 1.1.0, which not all of its programs speak: no pod can start where the runtime takes it",
        ),
    ],
)
def test_a_version_that_a_program_does_not_speak(cni, more, severity, what):
    (cni.conf / "10-flannel.conflist").write_text(conflist(FLANNEL, PORTMAP, **more))
    for name, versions in {"bridge": ["1.0.0", "1.1.0"], "host-local": ["0.3.1", "1.0.0"]}.items():
        path = cni.programs[0] / name
        path.write_text(f"#!/bin/sh\necho '{json.dumps({'supportedVersions': versions})}'\n")
    finding = only(cni)
    assert (finding.severity, finding.what) == (severity, f"the CNI configuration {what}")
    assert finding.evidence == f"{cni.conf}/10-flannel.conflist; {cni.programs[0]}/host-local speaks 1.0.0 at most"
    (cni.conf / "10-flannel.conflist").write_text(conflist(FLANNEL, PORTMAP, cniVersion="1.0.0"))
    assert judge(cni) == []


async def test_a_directory_with_nothing_but_a_lock_is_no_configuration_that_failed(cni):
    """Podman leaves one where no CNI is in use."""
    (cni.conf / "10-flannel.conflist").unlink()
    (cni.conf / "cni.lock").touch()
    found = await cni_config.look(doctor_facts(cni=CniFolders(cni.conf, cni.programs, named=False)))
    assert [type(it) for it in found] == [NotChecked]
