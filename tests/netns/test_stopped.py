"""What a daemon costs while nothing happens, and what `udp-backend cleanup` leaves of it once it has stopped."""

import subprocess

from running import cpu_share, resident_bytes

from bench.lab.daemon import program

WATCHED_S = 10.0
IDLE = 0.02
RESIDENT_BYTES = 128 << 20


def cleanup(overlay, host):
    argv = [program(), "cleanup", f"--subnet-file={overlay.run_directory(host)}/subnet.env"]
    done = subprocess.run(host.namespace.argv(argv), capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stdout, done.stderr


def test_cleanup_removes_what_a_daemon_has_left(make_overlay):
    overlay = make_overlay()
    a, _ = overlay.lab.hosts
    run = overlay.run_directory(a)
    status, said, errors = cleanup(overlay, a)
    assert (status, said) == (1, "")
    assert errors == f"udp-backend: a daemon is running: it answers on {run}/subnet.sock; stop it first\n"
    assert overlay.status(a)["verdict"]["state"] == "ready"

    process = overlay.process(a)
    process.send(9)  # this way it leaves its socket, too
    process.wait(5)
    assert sorted(path.name for path in run.iterdir()) == ["subnet.env", "subnet.sock"]
    status, said, errors = cleanup(overlay, a)
    assert (status, errors) == (0, "")
    table, _, removed = said.partition("\n\n")
    assert table.startswith("WHAT"), said
    for what in ("device flannel0", f"{run}/subnet.env", f"{run}/subnet.sock"):
        assert what in removed, said
    assert list(run.iterdir()) == []
    assert "flannel0" not in a.namespace.run("ip", "link")
    assert a.namespace.run("ip", "route", "show", "10.5.0.0/16") == ""

    assert cleanup(overlay, a) == (0, "nothing to clean up\n", "")
    overlay.launch(a)
    overlay.await_ready(a)


def test_an_idle_daemon_rests(make_overlay):
    overlay = make_overlay()
    process = overlay.process(overlay.lab.hosts[0])
    assert cpu_share(process, WATCHED_S) < IDLE
    assert resident_bytes(process) < RESIDENT_BYTES
