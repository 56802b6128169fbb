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


def rule(verb: str) -> tuple[str, ...]:
    return ("iptables", "-w", verb, "OUTPUT", "-p", "udp", "--dport", str(PORT), "-j", "DROP")


def way(verb: str, host: Host) -> tuple[str, ...]:
    return ("ip", "route", verb, "unreachable", f"{host.address}/32")


def burst(host: Host, address: str) -> None:
    """Datagrams from a pod, faster than anybody could read them who stands still."""
    with host.pod.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        for _ in range(BURST):
            sender.sendto(b"x", (address, 9))


@pytest.mark.parametrize("cause", ["no way", "firewall", "queue"])
def test_the_verdict_tells_of_it_and_heals(make_overlay, cause):
    overlay = make_overlay(hosts=3)
    a, b, c = overlay.lab.hosts
    tally = Tally(overlay, a)
    if cause == "queue":
        with held(overlay.process(a)):
            burst(a, b.pod_address)
        words, counter = "packets are lost: flannel0's queue was full", ""
    elif cause == "no way":
        a.namespace.run(*way("add", b))
        traffic.ping(a.pod, b.pod_address, count=3)
        words, counter = "packets are lost: this host has no way to a peer's public IP", "tx_drop_unreachable"
    else:
        a.namespace.run(*rule("-A"))
        traffic.ping(a.pod, b.pod_address, count=3)
        words, counter = "packets are lost: this host's firewall refuses datagrams to a peer", "tx_drop_refused"
    becomes(overlay, a, "degraded", SOON_S, words)
    finding = examine(overlay, a).findings["losses"]
    assert (finding["what"], finding["cure"] != "") == (words, True)
    assert bool(counter) == bool(tally.grown("tx_drop")), "what the kernel drops is no drop of ours"
    if cause == "no way":
        a.namespace.run(*way("del", b))
    elif cause == "firewall":
        a.namespace.run(*rule("-D"))
    until(lambda: traffic.ping(a.pod, b.pod_address, count=1).received == 1, SOON_S, "the cause is gone")
    assert traffic.ping(a.pod, c.pod_address).received == 5
    becomes(overlay, a, "ready", HEALS_S)
