"""What the small commands load before they answer: an operator waits for each import, again and again."""

import subprocess
import sys

import pytest

DAEMON = {"aiohttp", "cffi", "grpc", "lightkube", "prometheus_client", "pyroute2", "udpbackend._native", "uvloop"}
"""What only the daemon needs."""


def loaded(*argv):
    """Modules that the program has loaded when it ends."""
    words = (sys.executable, "-X", "importtime", "-m", "udpbackend", *argv)
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("import time:")]
    assert len(lines) > 50, ended.stderr
    return ended.returncode, {line.rsplit("|", 1)[1].strip() for line in lines[1:]}


@pytest.mark.parametrize(
    ("argv", "status", "heavy"),
    [
        (["--version"], 0, DAEMON | {"asyncio", "msgspec", "ssl", "subprocess"}),
        (["status"], 3, DAEMON | {"asyncio", "importlib.metadata", "subprocess"}),
        (["ping", "--all"], 3, DAEMON | {"importlib.metadata"}),
    ],
    ids=["version", "status", "ping"],
)
def test_a_small_command_loads_no_more_than_it_needs(tmp_path, argv, status, heavy):
    where = [] if argv == ["--version"] else [f"--status-socket={tmp_path / 'none.sock'}"]
    code, modules = loaded(*argv, *where)
    assert code == status
    assert not modules & heavy
