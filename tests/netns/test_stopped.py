"""What a daemon costs while nothing happens, and what `udp-backend cleanup` leaves of it once it has stopped."""

import re
import signal
import subprocess
from functools import partial
from pathlib import Path

from running import Log, cpu_share, resident_bytes

from bench.lab.daemon import program
from bench.lab.wait import until

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


def catches_sigterm(process):
    """Whether the program would answer SIGTERM: /proc/PID/status, SigCgt."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> (signal.SIGTERM - 1) & 1


def test_a_signal_at_any_point_of_a_start_is_an_ordinary_end(make_overlay):
    overlay = make_overlay()
    a, _ = overlay.lab.hosts
    overlay.stop(a)
    run = overlay.run_directory(a)
    points = {
        "it can answer": lambda process, _: catches_sigterm(process),
        "its socket is there": lambda *_: (run / "subnet.sock").exists(),
        "it says that it is ready": lambda _, log: log.lines("ready: "),
    }
    for what, reached in points.items():
        process = overlay.launch(a)
        log = Log(process)
        until(partial(reached, process, log), 20, what)
        overlay.stop(a)  # which asks for status 0
        assert log.lines("stopping on a signal"), what
    overlay.launch(a)
    overlay.await_ready(a)


def test_an_idle_daemon_rests(make_overlay):
    overlay = make_overlay()
    process = overlay.process(overlay.lab.hosts[0])
    assert cpu_share(process, WATCHED_S) < IDLE
    assert resident_bytes(process) < RESIDENT_BYTES
