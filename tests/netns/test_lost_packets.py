"""A daemon that runs while packets are lost on this host is not "ready": verdict and doctor name cause and cure."""

import socket

import pytest
from counted import Tally
from doctored import examine
from running import becomes, held

from bench.lab import traffic
from bench.lab.topology import Host
from bench.lab.wait import until

SOON_S, HEALS_S = 10.0, 30.0
PORT = 8285
BURST = 3000
"""Several times what flannel0's queue holds."""
CAUSES = {
    "no way": ("packets are lost: this host has no way to a peer's public IP", "tx_drop_unreachable"),
    "firewall": ("packets are lost: this host's firewall refuses datagrams to a peer", "tx_drop_refused"),
    "queue": ("packets are lost: flannel0's queue was full", ""),
}
"""What is said, and the counter of ours that grows."""


def rule(verb: str) -> tuple[str, ...]:
    return ("iptables", "-w", verb, "OUTPUT", "-p", "udp", "--dport", str(PORT), "-j", "DROP")


def way(verb: str, host: Host) -> tuple[str, ...]:
    return ("ip", "route", verb, "unreachable", f"{host.address}/32")


def burst(host: Host, address: str) -> None:
    """Datagrams from a pod, faster than anybody could read them who stands still."""
    with host.pod.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        for _ in range(BURST):
            sender.sendto(b"x", (address, 9))


@pytest.mark.parametrize("cause", CAUSES)
def test_the_verdict_tells_of_it_and_heals(make_overlay, cause):
    overlay = make_overlay(hosts=3)
    a, b, c = overlay.lab.hosts
    tally = Tally(overlay, a)
    words, counter = CAUSES[cause]
    if cause == "no way":
        a.namespace.run(*way("add", b))
    elif cause == "firewall":
        a.namespace.run(*rule("-A"))

    def lose() -> None:
        if cause == "queue":
            with held(overlay.process(a)):
                burst(a, b.pod_address)
        else:
            traffic.ping(a.pod, b.pod_address, count=3)

    def found():
        """A doctor that starts late on a busy machine is told of nothing any more: so it is lost anew each time."""
        lose()
        return examine(overlay, a).findings.get("losses")

    lose()
    becomes(overlay, a, "degraded", SOON_S, words)
    finding = until(found, HEALS_S, "the doctor does not say it")
    assert (finding["what"], finding["cure"] != "") == (words, True)
    assert list(tally.grown("tx_drop")) == ([counter] if counter else []), "what the kernel drops is no drop of ours"
    if cause == "no way":
        a.namespace.run(*way("del", b))
    elif cause == "firewall":
        a.namespace.run(*rule("-D"))
    until(lambda: traffic.ping(a.pod, b.pod_address, count=1).received == 1, SOON_S, "the cause is gone")
    assert traffic.ping(a.pod, c.pod_address).received == 5
    becomes(overlay, a, "ready", HEALS_S)


def test_what_a_device_that_is_down_refuses_is_no_full_queue(make_overlay):
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    tally = Tally(overlay, a)
    a.namespace.run("ip", "link", "set", "flannel0", "down")

    def refused() -> bool:
        traffic.ping(b.pod, a.pod_address, count=10)
        return tally.grown("flannel0_rx_dropped").get("flannel0_rx_dropped", 0) >= 20

    until(refused, SOON_S, "the kernel does not count what it refuses")
    assert tally.grown("rx_drop").keys() == {"rx_drop_tun_down"}
    becomes(overlay, a, "degraded", SOON_S, "flannel0 is down")
    assert tally.status()["losses"] == []
    a.namespace.run("ip", "link", "set", "flannel0", "up")
    becomes(overlay, a, "ready", HEALS_S)
