"""The Debian package in a bare Debian 12 that boots its own systemd: installed, started, asked, purged."""

import json
from pathlib import Path

from bench.lab.daemon import Overlay
from bench.lab.topology import Lab
from bench.lab.wait import LabError, until

START_S = 60.0
PAGES = ("", "-status", "-cleanup", "-ping", "-report", "-trace", "-doctor", "-install-cni")


def configure(machine, overlay):
    """The registry as a file, as /etc/default/udp-backend suggests it."""
    directory = machine.root / "etc/udp-backend"
    directory.mkdir()
    (directory / "nodes.json").write_text(overlay.registry.read_text())
    (machine.root / "etc/default/udp-backend").write_text(
        "FLANNELD_STATIC_SUBNETS=/etc/udp-backend/nodes.json\nFLANNELD_IFACE=eth0\nFLANNELD_IP_MASQ=true\n"
        "FLANNELD_IPTABLES_FORWARD_RULES=false\n"
    )


def test_it_installs_starts_carries_and_is_purged_without_a_trace(package, bare):
    machine = bare()
    machine.install("python3")
    before = machine.files()
    machine.install(package)
    assert machine.run("systemctl", "is-enabled", "udp-backend").strip() == "enabled"
    for page in PAGES:
        assert (machine.root / f"usr/share/man/man8/udp-backend{page}.8.gz").exists()

    with Lab(2) as lab, Overlay(lab, backend={"Type": "udp", "Port": 8285}) as overlay:
        a, b = lab.hosts
        configure(machine, overlay)
        overlay.launch(b)
        machine.boot(a.namespace)

        until_ready(machine)
        overlay.await_ready(b)
        b.pod.run("ping", "-c", "3", "-i", "0.2", "-W", "5", a.pod_address)
        assert "NoNewPrivs:\t1" in status_of(machine)

        machine.run("systemctl", "restart", "udp-backend")
        until_ready(machine)
        b.pod.run("ping", "-c", "3", "-i", "0.2", "-W", "5", a.pod_address)

        machine.run("apt-get", "-qq", "--yes", "purge", "udp-backend")
        assert "flannel0" not in a.namespace.run("ip", "-brief", "link")
        assert "10.5." not in a.namespace.run("ip", "route", "show", "proto", "117")
        assert not (machine.root / "run/flannel").exists()
        assert "could not be found" in machine.run("sh", "-c", "systemctl status udp-backend 2>&1", check=False)
        overlay.stop_all()
    (machine.root / "etc/udp-backend/nodes.json").unlink()
    (machine.root / "etc/udp-backend").rmdir()
    # What systemd itself writes when it boots for the first time is not ours.
    left = {it for it in machine.files() - before if not it.startswith(("etc/machine-id", "var/lib/systemd", "root"))}
    assert {it for it in left if "udp-backend" in it or "flannel" in it} == set()
    assert {it for it in left if it.startswith("usr/")} == set()


def until_ready(machine):
    def ready():
        said = machine.run("udp-backend", "status", "-o", "json", check=False)
        return bool(said) and json.loads(said)["verdict"]["state"] == "ready"

    try:
        until(ready, START_S, "status does not say ready")
    except LabError as error:
        raise LabError(f"{error}\n{machine.run('systemctl', 'status', 'udp-backend', check=False)}") from None


def status_of(machine):
    pid = machine.run("systemctl", "show", "--property=MainPID", "--value", "udp-backend").strip()
    return machine.run("cat", f"/proc/{pid}/status")


def test_bash_completes_commands_flags_and_values(package, bare):
    machine = bare()
    machine.install(package, "bash-completion")
    (machine.root / "tmp/complete.sh").write_text(
        ". /usr/share/bash-completion/bash_completion\n"
        ". /usr/share/bash-completion/completions/udp-backend\n"
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}\n'
        '_udp_backend; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )

    def completed(*words):
        return machine.run("bash", "/tmp/complete.sh", "udp-backend", *words).split()

    assert completed("st") == ["status"]
    assert "--static-subnets" in completed("--st")
    assert completed("status", "--wat") == ["--watch"]
    assert set(completed("status", "-o", "")) == {"text", "wide", "json"}
    assert completed("--static-subnets", "/etc/host") >= ["/etc/hostname"]
    assert Path(machine.root, "usr/share/bash-completion/completions/udp-backend").exists()
