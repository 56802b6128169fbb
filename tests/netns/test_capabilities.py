"""The daemon as root: what it does not need it gives up, and what it starts cannot get it back."""

import pytest
from test_rights import rights

from bench.lab import traffic
from bench.lab.daemon import Overlay, program
from bench.lab.topology import Lab

NEEDED = 1 << 12 | 1 << 10 | 1 << 23
"""NET_ADMIN, NET_BIND_SERVICE, SYS_NICE."""
NET_RAW, BPF = 1 << 13, 1 << 39

pytestmark = pytest.mark.usefixtures("able")


@pytest.mark.parametrize(
    ("arguments", "more"), [(("--ip-masq",), 0), (("--workers=2",), BPF)], ids=["rules", "workers"]
)
def test_root_keeps_what_the_settings_need(arguments, more):
    with Lab(2) as lab, Overlay(lab, *arguments) as overlay:
        overlay.start_all()
        a, b = lab.hosts
        assert traffic.ping(a.pod, b.pod_address).received
        [(user, held, no_new_privs)] = set(rights(overlay.process(a).pid))
        assert (user, no_new_privs) == (0, 1)
        assert held & ~NET_RAW == NEEDED | more
        told = overlay.status(a)["rights"]
        assert told["no_new_privs"]
        assert {"net_admin", "sys_nice"} <= set(told["capabilities"])
        socket = f"--status-socket={overlay.run_directory(a) / 'subnet.sock'}"
        assert "net_bind_service,net_admin" in a.namespace.run(program(), "status", socket, "-o", "wide")
        overlay.stop_all()
