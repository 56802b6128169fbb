"""A signal that ends the daemon, however early it comes: status 0, and a line that says so."""

import signal
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

DURING = """
import os, runpy, sys

module, number = sys.argv[1], int(sys.argv[2])

class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Interrupted())
sys.argv[1:] = sys.argv[3:]
runpy.run_module("udpbackend", run_name="__main__", alter_sys=True)
"""
"""Runs the program with the arguments from the third on, and sends itself a signal while it imports a module."""


def ended(module, number, *argv):
    command = [sys.executable, "-c", DURING, module, str(int(number)), *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("module", ["udpbackend.flags", "udpbackend.daemon", "uvloop", "pyroute2"])
def test_while_the_daemon_is_loaded(module, number, tmp_path):
    registry = tmp_path / "nodes.json"  # not there: whatever comes after the imports is an error
    found = ended(module, number, f"--static-subnets={registry}", f"--subnet-file={tmp_path}/subnet.env")
    assert (found.returncode, found.stdout) == (0, "")
    assert found.stderr == "udp-backend: stopping on a signal: nothing was started yet\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_command_ends_as_any_program_does(number, status):
    found = ended("udpbackend.commands.status", number, "status")
    assert (found.returncode, found.stdout) == (status, "")


def test_the_installed_program_begins_there():
    (found,) = entry_points(group="console_scripts", name="udp-backend")
    assert found.value == "udpbackend.__main__:main"
