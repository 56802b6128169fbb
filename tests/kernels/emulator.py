"""The program that a guest runs in: software emulation by QEMU.

Owns its command line, its life and its time: it ends with us, however we end, and at its limit whatever we do. Must not
know what the guest runs.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from guest import Guest

# A virtual CPU that takes 1 ns for an instruction, by a clock that counts them: so a second of the guest is what a
# slow machine does in one, however long the emulation takes, and deadlines mean what they mean on a real machine.
CLOCK = ("-accel", "tcg", "-smp", "1", "-icount", "shift=0", "-rtc", "clock=vm")

# la57: the sanitizers know 48-bit addresses. erms, fsrm: who sees them copies by `rep movsb`, which the emulator does
# byte by byte.
MACHINES = {"x86_64": ("-cpu", "max,la57=off,erms=off,fsrm=off"), "aarch64": ("-machine", "virt", "-cpu", "cortex-a72")}

# rep_good: as erms, but the kernel infers it. The clock is not to be calibrated against another one.
# norandmaps: the emulator finds what it has translated by its address, so a program that is started again at the same
# addresses costs less than half (100 times `ip link`: 8 s of a core, not 21).
COMMAND_LINES = {
    "x86_64": "console=ttyS0 no_timer_check tsc=reliable clearcpuid=rep_good",
    "aarch64": "console=ttyAMA0",
}


@contextlib.contextmanager
def running(booted: Guest, job: Path, console: Path, minutes: float) -> Iterator[subprocess.Popen[bytes]]:
    """The emulator with the guest's output as its stdout; what the kernel says goes to the file `console`.

    Both files are in the guest's root; `job` is the script that the guest's first process becomes. After these minutes
    the emulator is killed, and when the context ends.
    """
    # Who waits for its end is killed when we die, and it when that one does, so that neither needs us to stop it.
    bound = ("setpriv", "--pdeathsig", "KILL")
    limit = ("timeout", "--foreground", "--signal=KILL", f"{minutes * 60}s")
    with subprocess.Popen(
        [*bound, *limit, *bound, *_command(booted, job, console)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as emulator:
        try:
            yield emulator
        finally:
            emulator.kill()


def _command(booted: Guest, job: Path, console: Path) -> list[str]:
    inside = {
        name: Path("/", path.relative_to(booted.root)) for name, path in (("job", job), ("modules", booted.modules))
    }
    words = (COMMAND_LINES[booted.machine], "loglevel=5 panic=-1 mitigations=off nokaslr norandmaps")
    append = " ".join([*words, *(f"{name}={path}" for name, path in inside.items())])
    return [
        f"qemu-system-{booted.machine}",
        *("-nodefaults", "-nographic", "-no-reboot", *MACHINES[booted.machine], *CLOCK, "-m", "4096"),
        *("-kernel", str(booted.image), "-initrd", str(booted.initramfs), "-append", append),
        *("-virtfs", f"local,path={booted.root},mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
        *("-object", "rng-random,filename=/dev/urandom,id=random", "-device", "virtio-rng-pci,rng=random"),
        *("-device", "virtio-serial-pci", "-chardev", "stdio,id=out", "-device", "virtconsole,chardev=out"),
        *("-serial", f"file:{console}"),
    ]
