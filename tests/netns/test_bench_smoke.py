"""The bench measures: from the command line to a JSON document with proof, in one cell and for a second each."""

import fcntl
import json
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest

from bench import congestion

ROW = {"system", "link", "path", "mtu", "cc", "workload", "metric", "unit", "samples", "median", "min", "max", "runs"}
RATIO = {"system", "against", "link", "path", "mtu", "cc", "workload", "metric", "median", "min", "max", "pairs"}


@pytest.fixture(scope="module")
def _tools(able):
    if shutil.which("ethtool") is None:
        pytest.skip("needs ethtool")


@pytest.mark.usefixtures("_tools")
@pytest.mark.timeout(180)
def test_one_cell_from_end_to_end(tmp_path):
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", "--systems", "vxlan,udp", "--links", "wire", "--workloads", "tcp-1"]
    command += ["--pairs", "1", "--seconds", "1", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=80, check=False)
    assert done.returncode == 0, done.stderr
    assert "udp" in done.stdout
    document = json.loads(path.read_text())
    assert document["machine"]["cores"] >= 1
    assert all(row.keys() >= ROW for row in document["rows"])
    assert all(ratio.keys() >= RATIO for ratio in document["ratios"])
    rates = {row["system"]: row for row in document["rows"] if row["metric"] == "throughput_bps"}
    assert rates.keys() == {"vxlan", "udp"}
    for row in rates.values():
        assert row["median"] > 1e7
        assert row["proof"] == "ok"
        assert row["runs"] == len(row["samples"]) == 1
        assert row["surroundings"]["congestion"] == [row["cc"]]
        assert row["surroundings"]["offloads"]["generic-receive-offload"] is True
        assert row["surroundings"]["offloads"]["tcp-segmentation-offload"] is False
    (ratio,) = (it for it in document["ratios"] if it["metric"] == "throughput_bps")
    assert (ratio["system"], ratio["against"], ratio["pairs"]) == ("udp", "vxlan", 1)
    with congestion.USERS.open() as users, suppress(BlockingIOError):  # another bench that runs has it to do
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not users.read(), "allowed in the initial namespace and not taken back"


@pytest.mark.usefixtures("_tools")
@pytest.mark.timeout(90)
def test_what_our_daemon_sets_up_is_measured_beside_what_is_set_up_by_hand(tmp_path):
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", "--systems", "vxlan,host-gw", "--through-daemon", "--links", "wire"]
    command += ["--workloads", "tcp-1", "--pairs", "1", "--seconds", "1", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=80, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(path.read_text())
    rates = {row["system"]: row for row in document["rows"] if row["metric"] == "throughput_bps"}
    assert rates.keys() == {"vxlan", "vxlan-through-daemon", "host-gw", "host-gw-through-daemon"}
    assert all(row["proof"] == "ok" for row in rates.values())
    for by_hand in ("vxlan", "host-gw"):
        assert f"{by_hand}-through-daemon : {by_hand} " in done.stdout
        ours, theirs = (rates[name]["surroundings"]["devices"] for name in (f"{by_hand}-through-daemon", by_hand))
        assert ours == theirs


def test_help_lists_what_there_is():
    done = subprocess.run([sys.executable, "-m", "bench", "--help"], capture_output=True, text=True, check=True)
    words = (
        "--pairs",
        "--seconds",
        "--json",
        "--through-daemon",
        "vxlan",
        "wireguard-go",
        "wire-nogro",
        "pod-pod",
        "tcp-16",
        "connect",
    )
    assert [word for word in words if word not in done.stdout] == []
