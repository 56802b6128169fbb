"""One word in the configuration changed and the daemons restarted: nothing of the earlier backend is in the way."""

import json
from itertools import pairwise

import pytest

from bench.lab.daemon import Overlay
from bench.lab.topology import Lab

DEVICES = {"udp": {"flannel0"}, "vxlan": {"flannel.1"}, "host-gw": set()}


def devices(host):
    links = json.loads(host.namespace.run("ip", "-j", "link", "show"))
    return {link["ifname"] for link in links if link["ifname"].startswith("flannel")}


def ways(host, peer):
    """By which routes the host would send to the peer's pods, most specific first."""
    found = json.loads(host.namespace.run("ip", "-j", "route", "get", peer.subnet.replace(".0/24", ".2")))
    return {route["dev"] for route in found}


@pytest.mark.parametrize("order", [("udp", "vxlan", "host-gw", "udp"), ("vxlan", "udp", "host-gw", "vxlan")])
def test_each_backend_after_each_other(able, order):
    with Lab() as lab:
        for before, kind in pairwise(("", *order)):
            with Overlay(lab, backend={"Type": kind}) as overlay:
                overlay.start_all()
                one, other = lab.hosts
                for host, peer in ((one, other), (other, one)):
                    assert devices(host) == DEVICES[kind], f"{kind} after {before}"
                    assert ways(host, peer) == (DEVICES[kind] or {"eth0"}), f"{kind} after {before}"
                one.pod.run("ping", "-c", "2", "-i", "0.2", "-W", "2", str(other.pod_address))
                assert overlay.status(one)["network"]["backend"] == kind
