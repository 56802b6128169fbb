"""The bench under perf, for seconds: most of what a stream costs is found and named."""

import json
import shutil
import subprocess
import sys

import pytest

from bench.profile_chains import IDLE, KINDS


@pytest.fixture(scope="module")
def document(able, tmp_path_factory):
    if shutil.which("perf") is None:
        pytest.skip("needs perf (Debian: linux-perf)")
    path = tmp_path_factory.mktemp("profile") / "profile.json"
    command = [sys.executable, "-m", "bench", "profile", "--links", "wire", "--rounds", "2", "--seconds", "2"]
    done = subprocess.run([*command, "--json", path], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


def test_a_daemons_work_and_the_kernels_are_told_apart(document):
    vxlan, udp = (it["microseconds"] for it in document["profiles"])
    copies = {"app-kernel", "tun-daemon", "daemon-datagrams", "datagrams-daemon", "daemon-tun", "kernel-app"}
    assert vxlan.keys() & copies == {"app-kernel", "kernel-app"}
    assert udp.keys() > copies | {"out", "in", "inner", "daemon-kernel", "daemon-c"}
    assert udp.keys() <= {*KINDS, IDLE}


def test_a_link_that_there_is_not_is_named(able):
    command = [sys.executable, "-m", "bench", "profile", "--links", "wire,string"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "no link is called 'string': expected some of" in done.stderr
