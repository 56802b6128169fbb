"""The machine a bench runs on and the commit it measures: what every figure has to be read with.

Owns the reading of /proc, /sys and git. Must not know what is measured. What cannot be found out is an empty text.
"""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def parse_cpu(text: str) -> str:
    """The processor's name from /proc/cpuinfo."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Processor", "cpu model"):
            return value.strip()
    return ""


def parse_memory_bytes(text: str) -> int:
    """MemTotal of /proc/meminfo."""
    for line in text.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def load() -> list[float]:
    """The load averages of the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def machine() -> dict[str, Any]:
    """Everything that is the same for a whole run."""
    cpuinfo = _read("/proc/cpuinfo")
    return {
        "cpu": parse_cpu(cpuinfo),
        "cores": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in cpuinfo,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip(),
        "memory_bytes": parse_memory_bytes(_read("/proc/meminfo")),
        "kernel": platform.release(),
        "system": _pretty_name(_read("/etc/os-release")),
        "python": platform.python_version(),
        "default_congestion": _read("/proc/sys/net/ipv4/tcp_congestion_control").strip(),
        "default_qdisc": _read("/proc/sys/net/core/default_qdisc").strip(),
        "load_at_start": load(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit() -> str:
    """Of the checkout, with `-dirty` where files that git knows differ from it; empty outside one."""
    found = _git("rev-parse", "HEAD").strip()
    return found + ("-dirty" if found and _git("status", "--porcelain", "--untracked-files=no").strip() else "")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _pretty_name(text: str) -> str:
    for line in text.splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()
