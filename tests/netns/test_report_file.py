"""`udp-backend report` beside a running daemon, without one, and where it cannot write."""

import json
import stat
import subprocess
import tarfile

import pytest

from bench.lab.daemon import program

BYTES_MAX = 5_000_000
WORD = "hunter2"


def report(namespace, *words, **environ):
    """Exit status, standard output and standard error."""
    argv = namespace.argv(["env", *(f"{name}={value}" for name, value in environ.items()), program(), "report", *words])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stdout, done.stderr


def members(path):
    with tarfile.open(path) as archive:
        return {it.name.removeprefix("udp-backend-report/"): archive.extractfile(it).read().decode() for it in archive}


def test_it_holds_what_a_report_of_a_fault_needs(overlay, tmp_path):
    a, b = overlay.lab.hosts
    a.pod.run("ping", "-c", "1", "-W", "5", b.pod_address)
    path = tmp_path / "report.tar.gz"
    run = overlay.run_directory(a)
    status, out, err = report(a.namespace, str(path), f"--subnet-file={run}/subnet.env")
    assert (status, err) == (0, "")
    found = members(path)
    assert set(out.splitlines()) >= {f"  {name}" for name in found}
    for name in ("status.json", "status-later.json"):
        assert json.loads(found[name])["verdict"]["state"] == "ready"
    assert " not checked)" in found["doctor.txt"]
    assert f"FLANNEL_SUBNET=10.5.{a.number}.1/24" in found["subnet.env"]
    assert "flannel0" in found["ip/-s_-d_link.txt"]
    assert "10.5.0.0/16" in found["ip/route_show_table_all.txt"]
    assert "rx-udp-gro-forwarding" in found["offloads/flannel0.txt"]
    assert "udp-backend " in found["versions.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size < BYTES_MAX
    assert [it.name for it in tmp_path.iterdir()] == ["report.tar.gz"]


def test_it_stays_small_and_without_secrets_whatever_the_log_holds(overlay, tmp_path):
    a = overlay.lab.hosts[0]
    (tmp_path / "bin").mkdir()
    journal = tmp_path / "bin/journalctl"
    journal.write_text(f"#!/bin/sh\nhead -c 20000000 /dev/urandom | base64\necho --etcd-password={WORD} to 8.8.4.4\n")
    journal.chmod(0o755)
    path = tmp_path / "report.tar.gz"
    run = overlay.run_directory(a)
    where = f"{journal.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    status, _, err = report(a.namespace, str(path), "--redact", f"--subnet-file={run}/subnet.env", PATH=where)
    assert (status, err) == (0, "")
    assert path.stat().st_size < BYTES_MAX
    log = members(path)["log.txt"]
    assert "characters are left out" in log
    assert WORD not in log
    assert "8.8.4.4" not in log
    assert "public-ipv4-" in log


def test_without_a_daemon_it_says_so_and_holds_the_rest(overlay, tmp_path):
    path = tmp_path / "report.tar.gz"
    status, _, err = report(overlay.lab.hosts[0].namespace, str(path), f"--subnet-file={tmp_path}/none.env")
    assert (status, err) == (0, "")
    found = members(path)
    assert "not running: nobody listens" in found["status.json"]
    assert "subnet.env" not in found
    assert "eth0" in found["ip/-d_addr.txt"]


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("there", 1, "it exists already"),
        ("none/report.tar.gz", 1, "No such file or directory"),
        (None, 2, "FILE.tar.gz"),
    ],
)
def test_where_it_cannot_write_it_says_why_and_leaves_nothing(overlay, tmp_path, name, status, said):
    (tmp_path / "there").write_text("mine")
    words = [] if name is None else [str(tmp_path / name), f"--subnet-file={tmp_path}/none.env"]
    found, out, err = report(overlay.lab.hosts[0].namespace, *words)
    assert (found, out) == (status, "")
    assert said in err
    assert [it.name for it in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "mine"
