"""Runs tests inside a guest with another kernel: `python tests/kernels KERNEL [--run COMMAND] [pytest's arguments]`.

Owns the job that the guest finds, and the verdict. Everything the guest prints goes to stdout as it comes. What a guest
is made of stands in guest.py, what it runs in, and for how long, in emulator.py.
"""

import argparse
import compileall
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import arm64
from emulator import running
from guest import HERE, Guest, GuestError, of_series

CONSOLE_LINES = 40
ENDED = "guest ended with status"
"""The guest's last words; what stands behind them is the command's exit status."""

PYTEST = ("-m", "pytest", "-p", "no:cacheprovider")
NO_SKIP = "UDPB_NO_SKIP"
WHOLE = ("-v", "@tests/kernels/whole")
"""What pytest is told unless there are arguments; the C tests go before it then."""

COMPLAINTS = ("WARNING:", "BUG:", "Oops", "Call Trace:", "Kernel panic", "bad gso")
"""A kernel that says this on its console has failed, whatever the tests say."""


def main() -> int:
    """0 when the command in the guest ended well and its kernel did not complain."""
    options, more = _parser().parse_known_args()
    try:
        guest = arm64.guest() if options.kernel == "arm64" else of_series(options.kernel)
    except GuestError as error:
        print(f"test-kernels: {error}", file=sys.stderr)
        return 2
    tests = more or list(WHOLE)
    pytest = shlex.join([guest.python, *PYTEST, *tests])
    command = options.run or (pytest if more else f"make c-test-plain && {pytest}")
    _compile([] if options.run else tests)
    with tempfile.TemporaryDirectory(prefix="guest-", dir=guest.root / "tmp") as directory:
        return _run(guest, command, Path(directory), options.minutes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests/kernels", allow_abbrev=False)
    parser.add_argument("kernel", help="a series, 6.1 or 6.12, or arm64")
    parser.add_argument("--run", help="a command for the guest's shell, instead of pytest")
    parser.add_argument("--minutes", type=float, default=180, help="after which the guest is stopped (default 180)")
    return parser


def _compile(tests: list[str]) -> None:
    """Lets a guest find the bytecode that it would make, and lose, by itself: of its tests too, where it has some."""
    for name in ("udpbackend", "bench"):
        compileall.compile_dir(HERE.parent.parent / name, quiet=1)
    if tests:  # pytest compiles them itself, with assertions that tell more
        environment = {key: it for key, it in os.environ.items() if key not in {"PYTHONDONTWRITEBYTECODE", NO_SKIP}}
        collect = [sys.executable, *PYTEST, "--collect-only", *tests]
        subprocess.run(collect, cwd=HERE.parent.parent, env=environment, capture_output=True, check=False)


def _run(booted: Guest, command: str, directory: Path, minutes: float) -> int:
    job, console = directory / "job", directory / "console"
    job.write_text(_job(booted, command))
    console.touch()
    print(f"--- Linux {booted.release}: {command}", flush=True)
    with running(booted, job, console, minutes) as emulator:
        status = _follow(emulator)
    said = console.read_text(errors="replace").splitlines()
    complained = [line for line in said if any(word in line for word in COMPLAINTS)]
    if status is None:
        print(f"--- Linux {booted.release}: no end within {minutes:g} minutes, or the guest died; its console's last:")
        print("\n".join(said[-CONSOLE_LINES:]))
    elif complained:
        print(f"--- Linux {booted.release}: the kernel complained:")
        print("\n".join(said[said.index(complained[0]) :][:CONSOLE_LINES]))
    else:
        print(f"--- Linux {booted.release}: {'ok' if status == 0 else f'FAILED with status {status}'}")
    return status or int(bool(complained)) if status is not None else 1


def _follow(emulator: subprocess.Popen[bytes]) -> int | None:
    """Passes on what the guest prints; the status that it ended with, None if it did not say."""
    assert isinstance(emulator.stdout, io.BufferedReader)
    tail = b""
    while piece := emulator.stdout.read1():
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        tail = (tail + piece)[-200:]
    found = re.search(rf"^{ENDED} (\d+)$", tail.decode(errors="replace"), re.MULTILINE)
    return int(found[1]) if found else None


def _job(booted: Guest, command: str) -> str:
    """What the guest's first process becomes: the command with an output of its own."""
    passed = {NO_SKIP: "1"}  # on the host a program may be missing; the guest has them all
    passed |= {name: os.environ[name] for name in (NO_SKIP, "PYTEST_ADDOPTS") if name in os.environ}
    passed["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    passed |= {"HOME": "/root", "LANG": "C.UTF-8", "SHELL": "/bin/sh"}
    return f"""exec </dev/null >/dev/hvc0 2>&1
stty -F /dev/hvc0 raw
export {" ".join(f"{name}={shlex.quote(value)}" for name, value in passed.items())}
ip link set lo up; hostname guest; modprobe tun
cd {shlex.quote(booted.checkout)}
( {command}
)
printf '\\n%s\\n' "{ENDED} $?"
echo o >/proc/sysrq-trigger
sleep 60
"""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what we made is taken back
    sys.exit(main())
