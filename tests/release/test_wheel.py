"""The wheel: installed where there is no compiler, it carries packages."""

import os
import subprocess
import sys
from pathlib import Path

from bench.lab.daemon import Overlay
from bench.lab.topology import Lab


def test_an_overlay_runs_from_a_fresh_environment_without_a_compiler(wheel, tmp_path):
    assert "-cp311-abi3-manylinux" in wheel.name
    venv = tmp_path / "venv"
    subprocess.run([Path(sys.base_prefix, "bin/python3.11"), "-m", "venv", venv], check=True)
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    subprocess.run(
        [venv / "bin/python", "-m", "pip", "install", "--quiet", "--only-binary=:all:", wheel],
        check=True,
        env=os.environ | {"PATH": str(nowhere), "CC": "/bin/false"},
    )
    with Lab(2) as lab, Overlay(lab, installed=str(venv / "bin/udp-backend")) as overlay:
        overlay.start_all()
        a, b = lab.hosts
        a.pod.run("ping", "-c", "3", "-i", "0.2", "-W", "5", b.pod_address)
        assert overlay.carried(a).tx_packets >= 3
        overlay.stop_all()
