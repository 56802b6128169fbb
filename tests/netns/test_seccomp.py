"""The threads that move packets can make few system calls: all that the dataplane does is done under that filter.

Every other test of an overlay runs under it, too, and fails at its end when a call was refused (Overlay.stop_all). Here
one daemon goes every way that needs a call of its own, and its counters show that it went there.
"""

import re
from pathlib import Path

import pytest
from paths import LONGEST, drain, learn, running, udp_pair
from running import counter, held
from test_handover import hand_over

from bench.lab import slow, traffic
from bench.lab.daemon import Overlay, program
from bench.lab.routed import RoutedLab
from bench.lab.topology import Lab
from bench.lab.wait import until
from bench.surroundings import ROOT

PATH_BYTES = 1400
DEADLINE_S = 30.0
CALLS = 15
FILTER = 2
"""SECCOMP_MODE_FILTER."""
NOBODY_HAS = "10.5.77.1"

pytestmark = pytest.mark.usefixtures("able")


def filtered(pid):
    """Name and nice value of each thread that has a filter."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        status, stat = (task / "status").read_text(), (task / "stat").read_text()
        if int(re.search(r"^Seccomp:\s*(\d)", status, re.MULTILINE)[1]) == FILTER:
            found.append((re.search(r"^Name:\s*(\S+)", status)[1], int(stat.rpartition(")")[2].split()[16])))
    return sorted(found)


@pytest.mark.parametrize("workers", [0, 2], ids=["one", "workers"])
def test_only_the_threads_that_move_packets_have_it(workers):
    with Lab(2) as lab, Overlay(lab, f"--workers={workers}") as overlay:
        overlay.start_all()
        a = lab.hosts[0]
        assert filtered(overlay.process(a).pid) == [(f"udpb-{i}", -15) for i in range(max(1, workers))]
        movers = overlay.status(a)["movers"]
        assert (movers["filtered"], movers["unfiltered"]) == (movers["threads"], None)
        socket = f"--status-socket={overlay.run_directory(a) / 'subnet.sock'}"
        assert "under a seccomp filter" in a.namespace.run(program(), "status", socket)
        overlay.stop_all()


def test_it_lets_fifteen_system_calls_pass_at_most():
    source = (ROOT / "native" / "guard.c").read_text()
    passed = re.findall(r"\bALLOW\(__NR_(\w+)\)", source)
    assert len(set(passed)) + len(["socket"]) <= CALLS, passed
    assert source.count("SECCOMP_RET_ALLOW") == 2, "in ALLOW, and for one kind of socket"


def test_it_can_be_switched_off():
    with Lab(2) as lab, Overlay(lab, "--seccomp=false") as overlay:
        overlay.start_all()
        a, b = lab.hosts
        assert traffic.ping(a.pod, b.pod_address).received
        assert filtered(overlay.process(a).pid) == []
        assert overlay.status(a)["movers"]["unfiltered"] == "--seccomp=false"
        overlay.stop_all()


WAYS = pytest.mark.parametrize("arguments", [(), ("--workers=2", "--source-ports=2")], ids=["one", "workers"])


@WAYS
def test_super_packets_icmp_and_the_question_what_a_path_takes(arguments):
    with running(RoutedLab(PATH_BYTES), *arguments) as scene:
        a, b = scene.a, scene.b
        with udp_pair(scene) as (sender, receiver):
            learn(scene, sender, PATH_BYTES)
            sender.send(bytes(LONGEST - 28))
            sender.send(b"last")
            drain(receiver)
        for reverse in (False, True):  # after it the pod itself knows what the path takes
            assert traffic.tcp(traffic.Way(a.pod, b.pod, b.pod_address), seconds=1, reverse=reverse).received_bytes
        traffic.ping(a.pod, NOBODY_HAS, count=2)
        with held(scene.overlay.process(a)):
            a.namespace.run("sleep", "0.1")  # its threads wait in the kernel, or are in the midst of a call
        assert traffic.ping(a.pod, b.pod_address).received
        value = scene.tally.read()
        for name in ("path_mtu_learned", "icmp_too_big", "icmp_unreachable", "fragmented"):
            assert value[f"tx_{name}"], name


@WAYS
def test_sockets_for_slow_peers_another_device_and_another_process(arguments):
    with running(Lab(), *arguments) as scene:
        a, b, overlay = scene.a, scene.b, scene.overlay
        slow.slow_down(a, b.address)
        with slow.flooded(a, b.pod_address, segmented=True, pause_s=0.01):
            until(lambda: counter(overlay, a, "tx_drop_slow_peer"), DEADLINE_S, "no packet was dropped for a slow peer")
        a.namespace.run("tc", "qdisc", "delete", "dev", "eth0", "root")
        a.namespace.ip("link delete flannel0")
        until(lambda: traffic.ping(a.pod, b.pod_address, count=1).received, DEADLINE_S, "flannel0 is not made again")
        before, after = hand_over(overlay, a, *arguments)
        assert before.stop() == 0
        assert traffic.ping(a.pod, b.pod_address).received
        assert filtered(after.pid)
