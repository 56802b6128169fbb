"""The Debian package in a bare Debian 12 that boots its own systemd: installed, started, asked, purged."""

import json
import shlex
from pathlib import Path

import pytest

from bench.lab.daemon import Overlay
from bench.lab.topology import Lab
from bench.lab.traffic import Way
from bench.lab.wait import LabError, until
from bench.restart_probes import stream

START_S = 60.0
PER_S = 2000
"""Datagrams in either direction while the service is reloaded: what one millisecond without a queue would show."""
PAGES = ("", "-status", "-cleanup", "-ping", "-report", "-trace", "-doctor", "-install-cni")

HARDENING = (
    "Capability", "NoNew", "Device", "Protect", "Private", "Keyring", "Lock", "Memory", "Restrict", "SystemCall",
    "UMask",
)  # fmt: skip
PYTHON = "python3 -c 'import {}; {}'"
TRIED = {
    "write the run directory": "touch /run/flannel/x && rm /run/flannel/x",
    "make a network device": "ip link add udpb-try type bridge && ip link delete udpb-try",
    "write /etc": "touch /etc/udpb && rm /etc/udpb",
    "write /usr": "touch /usr/udpb && rm /usr/udpb",
    "write in a home": "touch /root/udpb && rm /root/udpb",
    "write the kernel's switches": "echo 1 >/proc/sys/kernel/pid_max || echo 1 >/proc/sys/net/ipv4/ip_forward",
    "mount": "mount -t tmpfs none /mnt && umount /mnt",
    "make a block device": "mknod /run/flannel/device b 7 0",
    "make a namespace": "unshare --uts true",
    "be another user": "setpriv --reuid=65534 --clear-groups true",
    "make a file that gives rights": "touch /run/flannel/suid && chmod u+s /run/flannel/suid",
    "open a raw socket": PYTHON.format("socket", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
    "open a packet socket": PYTHON.format("socket", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 1)"),
    "load a module": "modprobe loop",
    "set the clock": "date -s @1",
    "make memory that is written and run": PYTHON.format("mmap", "mmap.mmap(-1, 4096, prot=7)"),
    "be another machine": "setarch -R true",
    "run before all others": "chrt -f 1 true",
    "see the processes of others": "test -d /proc/1/fd && ls /proc/1/fd/0",
}
PLAIN = {
    "write /etc", "write /usr", "write in a home", "make a namespace", "be another user", "open a raw socket",
    "make a file that gives rights", "make memory that is written and run", "be another machine",
}  # fmt: skip
"""Of these a service may do at least so much if nothing forbids it."""


def configure(machine, overlay):
    """The registry as a file, as /etc/default/udp-backend suggests it."""
    directory = machine.root / "etc/udp-backend"
    directory.mkdir()
    (directory / "nodes.json").write_text(overlay.registry.read_text())
    (machine.root / "etc/default/udp-backend").write_text(
        "FLANNELD_STATIC_SUBNETS=/etc/udp-backend/nodes.json\nFLANNELD_IFACE=eth0\nFLANNELD_IP_MASQ=true\n"
        "FLANNELD_IPTABLES_FORWARD_RULES=false\nFLANNELD_WORKERS=1\n"
    )


@pytest.mark.timeout(600)
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
        told = json.loads(machine.run("udp-backend", "status", "-o", "json"))
        assert told["rights"] == {"capabilities": ["net_admin"], "no_new_privs": True}
        assert (told["movers"]["threads"], told["movers"]["filtered"]) == (1, 1)
        assert told["restart"]["kept_by"] == "service manager"

        pid, there, back = main_pid(machine), way(a, b), way(b, a)
        with stream(there, PER_S) as leaving, stream(back, PER_S) as coming:
            machine.run("systemctl", "reload", "udp-backend")
            assert main_pid(machine) != pid
            until_ready(machine)
        assert (leaving.seen().lost, coming.seen().lost) == (0, 0)

        without, within = tried(machine, hardened=False), tried(machine, hardened=True)
        assert {name for name, done in within.items() if done} == {"write the run directory", "make a network device"}
        assert {name for name, done in without.items() if done} >= PLAIN

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


def way(a, b):
    """From the pods of one host to those of the other."""
    return Way(a.pod, b.pod, b.pod_address, a.pod_address)


def until_ready(machine):
    def ready():
        said = machine.run("udp-backend", "status", "-o", "json", check=False)
        return bool(said) and json.loads(said)["verdict"]["state"] == "ready"

    try:
        until(ready, START_S, "status does not say ready")
    except LabError as error:
        raise LabError(f"{error}\n{machine.run('systemctl', 'status', 'udp-backend', check=False)}") from None


def status_of(machine):
    return machine.run("cat", f"/proc/{main_pid(machine)}/status")


def main_pid(machine):
    return machine.run("systemctl", "show", "--property=MainPID", "--value", "udp-backend").strip()


def tried(machine, *, hardened):
    """What a program can do in a unit of its own, with the settings of ours that harden it or without."""
    path = next(it for it in machine.root.glob("*/lib/systemd/system/udp-backend.service"))
    ours = [it for it in path.read_text().splitlines() if it.startswith(HARDENING)] if hardened else []
    lines = ["[Service]", "Type=oneshot", "RuntimeDirectory=flannel", "RuntimeDirectoryPreserve=yes", *ours]
    script = [f"if ( {command} ) >/dev/null 2>&1; then echo {shlex.quote(name)}; fi" for name, command in TRIED.items()]
    (machine.root / "etc/udpb-try").write_text("\n".join(["cd /", "exec >/run/flannel/tried", *script, "exit 0"]))
    unit = "\n".join([*lines, "ExecStart=/bin/sh /etc/udpb-try", ""])
    machine.run("sh", "-c", f"cat >/run/systemd/system/udpb-try.service <<'END'\n{unit}END")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "udpb-try")
    done = machine.run("cat", "/run/flannel/tried").splitlines()
    (machine.root / "etc/udpb-try").unlink()
    machine.run("rm", "-f", "/run/flannel/tried", "/run/flannel/suid", "/run/flannel/device")
    return {name: name in done for name in TRIED}


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
