"""The demonstration runs with each backend, and all of them side by side: what a newcomer sees first."""

import subprocess
import sys

import pytest

WELL = "tests went through the overlay"


def demo(backend, *more):
    """Its table, below the header's rule, one list of words a line; fails with all it said unless it was content."""
    command = [sys.executable, "-m", "bench.demo", "--backend", backend, "--seconds", "1", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=80, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert WELL in done.stdout
    header, rest = done.stdout.strip().split("\n-", 1)
    return header, [line.split() for line in rest.splitlines()[1:] if line.startswith(("pod", "host", "every"))]


@pytest.mark.usefixtures("able")
@pytest.mark.timeout(90)
@pytest.mark.parametrize(("backend", "counter"), [("udp", "daemon"), ("vxlan", "flannel.1"), ("host-gw", "eth0")])
def test_one_backend(backend, counter):
    header, rows = demo(backend)
    assert f"{counter} tx" in header
    assert f"{counter} rx" in header
    assert [row[-1] for row in rows[:6]] == ["ok"] * 6
    assert rows[6][-1] in {"ok", "LOST"}, "a machine that runs tests may be too busy for that one"


@pytest.mark.usefixtures("able")
@pytest.mark.timeout(90)
def test_more_than_two_nodes_that_the_kernel_connects():
    _, rows = demo("vxlan", "--nodes", "3")
    assert [row[-1] for row in rows[:14]] == ["ok"] * 14
    assert rows[14][-1] in {"ok", "LOST"}


@pytest.mark.usefixtures("able")
@pytest.mark.timeout(90)
def test_all_side_by_side():
    header, rows = demo("compare")
    assert header.split() == ["path", "test", "udp", "vxlan", "host-gw"]
    (mtu,) = (row for row in rows if "MTU" in row)
    assert mtu[-3:] == ["1472", "1450", "1500"]
    (tcp,) = (row for row in rows if "TCP" in row)
    rates = [float(tcp[place - 1]) for place, word in enumerate(tcp) if word == "Gbit/s"]
    assert len(rates) == 3
    assert min(rates) > 0.01


def test_an_unknown_backend_is_named_with_what_there_is():
    command = [sys.executable, "-m", "bench.demo", "--backend", "ipip"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for word in ("ipip", "udp", "vxlan", "host-gw", "compare"):
        assert word in done.stderr
