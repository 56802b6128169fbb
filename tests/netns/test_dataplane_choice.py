"""`--dataplane` on a kernel without FOU: `kernel` is refused with what is missing, `auto` runs in userspace.

With FOU it is test_kernel_dataplane.py.
"""

import pytest
from fou_facts import KERNEL, refuse_fou
from kernel_overlay import routes, shown
from running import Log

from bench.lab import traffic
from bench.lab.daemon import Overlay
from bench.lab.topology import Lab

pytestmark = pytest.mark.usefixtures("able")
ENDED_S = 20


@pytest.fixture(scope="module")
def lab(able):
    refuse_fou()
    with Lab() as made:
        yield made


def test_kernel_is_refused_and_nothing_is_changed(lab):
    a, _ = lab.hosts
    with Overlay(lab) as overlay:
        process = overlay.launch(a, *KERNEL)
        assert process.wait(ENDED_S) == 1
        [*_, last] = process.stderr.read_text().splitlines()
    assert last.startswith("udp-backend: the kernel cannot be the dataplane: the kernel has no FOU: ")
    assert "module fou (CONFIG_NET_FOU)" in last
    assert routes(a.namespace) == {}
    assert not [it for it in shown(a.namespace, "link", "show") if it["ifname"].startswith("flannel")]
    assert not (overlay.run_directory(a) / "subnet.env").exists()


@pytest.mark.parametrize("said", ["flag", "configuration"])
def test_auto_runs_in_userspace_and_says_why(lab, said):
    a, b = lab.hosts
    flags, backend = ((), {"Dataplane": "auto"}) if said == "configuration" else (("--dataplane=auto",), None)
    with Overlay(lab, *flags, backend=backend) as overlay:
        overlay.start_all()
        assert overlay.status(a)["network"]["dataplane"] == "userspace"
        log = Log(overlay.process(a), whole=True).text().rpartition("udp-backend 0.")[2]  # of this run
        assert log.count("dataplane auto: userspace, since the kernel has no FOU: ") == 1
        found = traffic.ping(a.pod, b.pod_address)
        assert found.received == found.sent
        overlay.stop_all()


def test_a_backend_without_a_choice_refuses_it(lab):
    a, _ = lab.hosts
    with Overlay(lab, backend={"Type": "vxlan"}) as overlay:
        process = overlay.launch(a, *KERNEL)
        assert process.wait(ENDED_S) == 1
        assert "--dataplane=kernel: the vxlan backend leaves no choice" in process.tail()
