"""What a running daemon finds wrong with its own host: `status` says so in the doctor's words, until it is mended."""

import pytest
from running import becomes

DEADLINE_S = 20

CASES = {
    "somebody's route to another node's pods": (
        "route add 10.5.2.0/25 dev eth0",
        "route delete 10.5.2.0/25 dev eth0",
        "packets for other nodes' pods do not go into flannel0: other routes take them (10.5.2.0/25 dev eth0)",
    ),
    "a route over our own subnet": (
        "route add 10.5.1.128/25 dev eth0",
        "route delete 10.5.1.128/25 dev eth0",
        "packets for this node's own pods leave it: a route inside its subnet takes them (10.5.1.128/25 dev eth0)",
    ),
    "a default route by our device": (
        "route add default dev flannel0",
        "route delete default dev flannel0",
        "packets that are not the overlay's are led into flannel0, which drops them (0.0.0.0/0 dev flannel0)",
    ),
    "a peer behind our device": (
        "route add 192.168.77.2/32 dev flannel0",
        "route delete 192.168.77.2/32 dev flannel0",
        "datagrams to 1 peer go back into flannel0, for ever (192.168.77.2)",
    ),
    "the interface's MTU": (
        "link set eth0 mtu 1400",
        "link set eth0 mtu 1500",
        "full packets of the overlay do not fit eth0: they are cut, or their senders are told",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_degraded_host_is_called_so(overlay, case):
    broken, mended, words = CASES[case]
    a = overlay.lab.host("a")
    becomes(overlay, a, "ready", DEADLINE_S)
    a.namespace.ip(broken)
    try:
        becomes(overlay, a, "degraded", DEADLINE_S, words)
    finally:
        a.namespace.ip(mended)
    becomes(overlay, a, "ready", DEADLINE_S)


def test_a_host_that_forwards_nothing(overlay):
    a = overlay.lab.host("a")
    a.namespace.sysctl("ipv4/ip_forward", "0")
    try:
        becomes(overlay, a, "degraded", DEADLINE_S, "does not forward the packets of every pod")
    finally:
        a.namespace.sysctl("ipv4/ip_forward", "1")
    becomes(overlay, a, "ready", DEADLINE_S)
