"""deploy/systemd: a unit that systemd takes, with what the daemon needs and little else; variables that it reads."""

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from test_deploy_image import PROJECT, VENV
from test_deploy_kubernetes import DAEMON

from udpbackend import cli, flags
from udpbackend.dataplane import estate, tun
from udpbackend.errors import UsageError
from udpbackend.settings import Settings
from udpbackend.texts import SOURCE_PORTS_MAX, WORKERS_MAX

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
UNIT = FOLDER / "udp-backend.service"
VARIABLES = FOLDER / "udp-backend.default"

EXPOSURE = 21
"""In tenths, of 100: what is left by a daemon that administers the host's network as root, and sets a nice value."""


def read(path):
    """Every value of each key of each section, in their order."""
    found = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[section][key].append(value)
    return found


SERVICE = {key: values[-1] for key, values in read(UNIT)["Service"].items()}


def assignments(marker=""):
    """The variables that are set, or those that stand behind `marker`."""
    lines = VARIABLES.read_text().splitlines()
    found = [line.removeprefix(marker).partition("=") for line in lines if line.startswith(f"{marker}FLANNELD_")]
    return {name: value for name, _, value in found}


def systemd_analyze(tmp_path, *words):
    """Of the unit with a program that is there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / UNIT.name
    text = UNIT.read_text()
    for key in ("ExecStart", "ExecReload"):
        text = text.replace(f"{key}={SERVICE[key]}\n", f"{key}=/bin/true\n")
    unit.write_text(text)
    return subprocess.run(["systemd-analyze", *words, unit], capture_output=True, text=True, check=False)


def test_systemd_takes_it(tmp_path):
    done = systemd_analyze(tmp_path, "verify")
    assert (done.returncode, UNIT.name in done.stderr) == (0, False), done.stderr


def test_systemd_finds_little_to_fear(tmp_path):
    done = systemd_analyze(tmp_path, "security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager")
    assert done.returncode == 0, done.stdout


def test_it_starts_what_is_installed_and_waits_until_packets_flow():
    program = Path(SERVICE["ExecStart"])
    assert program.parent == Path(VENV) / "bin"
    assert program.name in PROJECT["scripts"]
    assert SERVICE["Type"] == "notify"
    assert SERVICE["TimeoutStartSec"] == "infinity"
    assert int(SERVICE["RestartPreventExitStatus"]) == UsageError.status


def test_its_reload_hands_over_and_its_store_holds_all_that_a_daemon_may_have():
    assert SERVICE["ExecReload"] == f"{SERVICE['ExecStart']} {cli.RELOAD}"
    assert SERVICE["NotifyAccess"] == "exec", "of the command that reloads, too; of all would be more than is needed"
    fds = WORKERS_MAX * 2 + SOURCE_PORTS_MAX + len(estate.STATES) + 1
    assert int(SERVICE["FileDescriptorStoreMax"]) >= fds


def test_it_may_use_what_the_daemon_uses():
    assert SERVICE["DeviceAllow"] == f"{tun.DEVICE} rw"
    assert (
        Path("/run") / SERVICE["RuntimeDirectory"] == Settings().subnet_file.parent == Settings().status_socket.parent
    )
    assert SERVICE["RuntimeDirectoryPreserve"] == "yes"
    capabilities = [f"CAP_{it}" for it in DAEMON["securityContext"]["capabilities"]["add"]]
    assert [*SERVICE["CapabilityBoundingSet"].split(), "CAP_SYS_NICE"] == capabilities
    # A limit is less than that capability, and a container has no way to be given one.
    assert (SERVICE["LimitNICE"], UNIT.read_text().count("\nSystemCallFilter=setpriority\n")) == ("-20", 1)


def test_its_variables_are_flags():
    assert SERVICE["EnvironmentFile"] == f"-/etc/default/{VARIABLES.stem}"
    known = {"FLANNELD_" + name.upper().replace("-", "_") for name in flags.FLAGS}
    assert assignments().keys() | assignments("#").keys() <= known


def test_the_variables_as_they_stand_choose_etcd():
    found = flags.parse([], assignments())
    assert found.etcd_endpoints == ("http://127.0.0.1:2379",)
    assert (found.ip_masq, str(found.healthz_ip)) == (True, "127.0.0.1")


def test_every_variable_that_is_offered_has_a_good_value():
    assert flags.parse([], assignments() | assignments("#")).static_subnets == Path("/etc/udp-backend/nodes.json")
