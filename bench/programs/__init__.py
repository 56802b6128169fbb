"""Small programs in C that the bench measures with, and how they are compiled.

Python itself would be what such a measurement shows. Each program is one file beside this one; it is compiled when it
is first asked for or has changed, into the checkout's build directory.
"""

import os
from pathlib import Path

from bench.lab.netns import run

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "bench" / "programs"
COMPILE_S = 60.0
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-D_GNU_SOURCE")


def path(name: str) -> str:
    """The program of that name, compiled."""
    source, program = HERE / f"{name}.c", BUILD / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(parents=True, exist_ok=True)
        fresh = program.with_name(f"{name}.{os.getpid()}")
        run(["cc", *FLAGS, str(source), "-o", str(fresh)], deadline_s=COMPILE_S)
        fresh.replace(program)
    return str(program)
