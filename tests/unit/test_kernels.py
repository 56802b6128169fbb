"""A guest of tests/kernels ends at its limit, and with the program that runs it, whatever becomes of that one.

The emulator is played by a script of its name that sleeps, so that no kernel is needed.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parent.parent / "kernels"
DEADLINE_S = 60

EMULATOR = """#!/bin/sh
for last; do :; done
echo "the kernel's last words" >"${last#file:}"
echo $$ >pid.partly
mv pid.partly pid
exec sleep 600
"""

RUN = """
import runpy, sys
from pathlib import Path
sys.argv[0] = "guest"
import guest
here = Path(sys.argv[1])
guest.of_series = lambda series: guest.Guest("0.0", here, here, here, here, str(here))
sys.argv[1:] = ["0.0", "--run", "true", "--minutes", sys.argv[2]]
runpy.run_path({main!r}, run_name="__main__")
"""


@contextmanager
def runner(tmp_path, minutes):
    """The program with a guest that says nothing, when that has started: (the program, the guest's pid)."""
    emulator = tmp_path / "bin" / "qemu-system-x86_64"
    emulator.parent.mkdir()
    emulator.write_text(EMULATOR)
    emulator.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    code = RUN.format(main=str(KERNELS / "__main__.py"))
    environment = os.environ | {"PATH": f"{emulator.parent}:{os.environ['PATH']}", "PYTHONPATH": str(KERNELS)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(minutes)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as program:
        try:
            soon((tmp_path / "pid").exists)
            yield program, int((tmp_path / "pid").read_text())
        finally:
            program.kill()


def soon(condition):
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def ended(pid):
    """Whether it runs no more. Nobody may have waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_guest_ends_with_its_runner(tmp_path, number):
    with runner(tmp_path, 10) as (program, guest):
        assert not ended(guest)
        program.send_signal(number)
        soon(lambda: ended(guest))
        program.wait(DEADLINE_S)
    if number != signal.SIGKILL:
        assert list((tmp_path / "tmp").iterdir()) == []


def test_a_guest_ends_at_its_limit_while_its_runner_is_stopped(tmp_path):
    with runner(tmp_path, 0.05) as (program, guest):
        program.send_signal(signal.SIGSTOP)
        soon(lambda: ended(guest))


def test_a_guest_at_its_limit_is_a_failure_with_the_end_of_its_console(tmp_path):
    with runner(tmp_path, 0.02) as (program, guest):
        printed, _ = program.communicate(timeout=DEADLINE_S)
    assert ended(guest)
    assert program.returncode == 1
    assert "no end within 0.02 minutes" in printed
    assert printed.endswith("the kernel's last words\n")
