"""The threads that move packets go before other programs; the control plane does not, and no right to it is no harm."""

import os
from pathlib import Path

import pytest

from bench.lab import hogs, traffic
from bench.lab.daemon import Overlay, program
from bench.lab.topology import Lab
from bench.lab.wait import until
from bench.workloads.loaded import background
from udpbackend.dataplane.priority import SESSION_NICE
from udpbackend.texts import NICE

DEADLINE_S = 30.0
ORDINARY = os.getpriority(os.PRIO_PROCESS, 0)
UNTOUCHED = {"threads": 0, "nice": ORDINARY, "session_nice": None, "refused": None, "filtered": 0}
"""`crowded` is what the daemon sees of a machine that we may share: only what else it says is ours to expect."""
LOOP = "the event loop makes other system calls, too"
CROWD = ", beside a program that keeps the core"
WITHOUT = ("setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice", "--")

pytestmark = pytest.mark.usefixtures("able")


def nice_values(pid):
    """Of each thread, by its name."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, rest = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
        found.setdefault(name, set()).add(int(rest.split()[16]))
    return found


def session(overlay, host):
    return overlay.status(host)["movers"]["session_nice"]


@pytest.mark.parametrize(
    ("arguments", "threads"), [((), {"udpb-0"}), (("--workers=2",), {"udpb-0", "udpb-1"})], ids=["one", "workers"]
)
def test_only_the_threads_that_move_packets_are_raised(arguments, threads):
    with Lab(2) as lab, Overlay(lab, *arguments) as overlay:
        overlay.start_all()
        a, b = lab.hosts

        def raised():
            values = nice_values(overlay.process(a).pid)
            assert not any(NICE in nices for name, nices in values.items() if not name.startswith("udpb-"))
            return {name for name, nices in values.items() if nices == {NICE}} == threads

        until(raised, DEADLINE_S, "not raised")
        found = traffic.ping(a.pod, b.pod_address)
        assert found.received == found.sent
        movers = overlay.status(a)["movers"]
        assert (movers["threads"], movers["nice"], movers["refused"]) == (len(threads), NICE, None)
        overlay.stop_all()


def test_a_program_that_keeps_the_core_is_seen_and_the_session_raised():
    """By a stream, which takes the core for long enough to be kept from it. The session is the control plane's, too.

    What was seen is forgotten in seconds, and a program that asks takes as long to start here: so the stream goes on.
    """
    with Lab(2) as lab, Overlay(lab) as overlay, hogs.hogs(2 * hogs.cores()):
        overlay.start_all()
        a, b = lab.hosts
        status = (program(), "status", f"--status-socket={overlay.run_directory(a) / 'subnet.sock'}")
        group = Path(f"/proc/{overlay.process(a).pid}/autogroup")
        with background(traffic.Way(a.pod, b.pod, b.pod_address, a.pod_address), 4 * DEADLINE_S):
            until(lambda: overlay.status(a)["movers"]["crowded"], DEADLINE_S, "nobody is seen")
            until(lambda: CROWD in a.namespace.run(*status), DEADLINE_S, "status does not say so")
            if group.exists():  # not every kernel has that
                until(lambda: int(group.read_text().split()[2]) == SESSION_NICE, DEADLINE_S, "session not raised")
        overlay.stop_all()


def test_without_the_right_to_it_packets_flow_and_status_and_doctor_say_so():
    with Lab(2) as lab, Overlay(lab, before=WITHOUT) as overlay:
        overlay.start_all()
        a, b = lab.hosts
        found = traffic.ping(a.pod, b.pod_address)
        assert found.received == found.sent
        movers = overlay.status(a)["movers"]
        assert (movers["threads"], movers["nice"]) == (0, ORDINARY)
        assert "SYS_NICE" in movers["refused"]
        socket = f"--status-socket={overlay.run_directory(a) / 'subnet.sock'}"
        shown = a.namespace.run(program(), "status", socket)
        crowd = CROWD if CROWD in shown else ""  # others may keep the core, and whether they do is not asked here
        assert f"moved by the event loop, nice {ORDINARY}{crowd}: nice {NICE} was refused" in shown
        said = a.namespace.run(program(), "doctor", socket, check=False)
        assert "packets have to wait where other programs are busy" in said
        assert overlay.process(a).stderr.read_text().count("SYS_NICE") == 1
        overlay.stop_all()


def test_nice_0_leaves_them_alone():
    with Lab(2) as lab, Overlay(lab, "--nice=0") as overlay:
        overlay.start_all()
        movers = overlay.status(lab.hosts[0])["movers"]
        assert movers == UNTOUCHED | {"unfiltered": LOOP, "crowded": movers["crowded"]}
        overlay.stop_all()
