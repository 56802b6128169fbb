"""What a host's kernel has of a vxlan peer, as the tests of that backend expect it.

Owns these expectations. Must not know daemons.
"""

from kernel_overlay import addresses, forwards, link, neighbours, routes, shown

from bench.lab.wait import LabError
from udpbackend.backends.vxlan_peers import derived_mac
from udpbackend.model import Prefix

VXLAN = {"Type": "vxlan"}
MTU = 1450
REPAIRED_S = 5.0
"""Promised within three; a busy machine may add to it."""
OTHER_MAC = "02:00:00:00:00:99"


def mac(host, vni=1):
    """What every node takes a host's MAC to be."""
    return derived_mac(vni, Prefix.parse(host.subnet)).hex(":")


def leads_to(namespace, peer):
    """What has to be in a host's kernel for a peer, and nothing else."""
    base = peer.subnet.partition("/")[0]
    return (
        routes(namespace) == {peer.subnet: (base, "flannel.1", "117")}
        and neighbours(namespace, "flannel.1") == {base: mac(peer)}
        and forwards(namespace, "flannel.1") == {mac(peer): peer.address}
    )


def whole(host, peer):
    """Whether a host has all that it needs for its only peer."""
    try:
        found = link(host.namespace, "flannel.1")
    except (LabError, ValueError):  # there is no such device at the moment, or it is just being made
        return False
    return (
        (found["mtu"], found["address"]) == (MTU, mac(host))
        and addresses(host.namespace, "flannel.1") == [f"10.5.{host.number}.0/32"]
        and leads_to(host.namespace, peer)
    )


def exists(host):
    """Whether there is a device."""
    return any(it["ifname"] == "flannel.1" for it in shown(host.namespace, "link", "show"))
