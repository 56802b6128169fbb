"""Facts for the tests of observe/ and of `status`: a daemon with three nodes, made up."""

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address

from msgspec.structs import replace

from udpbackend.backends.backend import Overlay
from udpbackend.backends.udp_drops import KERNEL_DROPS
from udpbackend.dataplane.native import PeerCounters, counter_infos
from udpbackend.model import BackendConfig, Endpoint, IPv6Config, Lease, NetworkConfig, Prefix
from udpbackend.observe.facts import Facts, RegistryView
from udpbackend.observe.nodes import Nodes
from udpbackend.observe.report import Rates

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SYNCED = datetime(2026, 1, 2, 4, 0, 0, tzinfo=UTC)

SOME = {
    "tx_received": 120,
    "tx_delivered": 118,
    "tx_drop_no_route": 2,
    "tx_bytes": 3_000_000,
    "rx_received": 50,
    "rx_delivered": 49,
    "rx_drop_unknown_peer": 1,
    "rx_bytes": 2048,
}


def values(counts):
    """Counters in the dataplane's order."""
    assert counts.keys() <= {info.name for info in counter_infos()}
    return [counts.get(info.name, 0) for info in counter_infos()]


def kernel(**counts):
    """Drops by the kernel, by their names."""
    return {it: counts[it.name] for it in KERNEL_DROPS if it.name in counts}


def peer(address, **changes):
    fields = {
        "address": IPv4Address(address),
        "port": 8285,
        "tx_packets": 7,
        "tx_bytes": 700,
        "rx_packets": 5,
        "rx_bytes": 500,
        "path_mtu": None,
        "path_mtu_left_s": 0,
        "silent_s": 62.5,
        "tx_dropped": 0,
        "dropped_ago_s": None,
        "unanswered_s": 0,
    }
    found = {**fields, **changes}
    state = "silent" if found["silent_s"] is None else "seen"
    return PeerCounters(**{"state": "unanswered" if found["unanswered_s"] else state, **found})


def lease(subnet, address, node="", ipv6_subnet=None, backend_type="udp"):
    ipv6 = ipv6_subnet and Prefix.parse(ipv6_subnet)
    return Lease(Prefix.parse(subnet), int(IPv4Address(address)), node, ipv6, backend_type)


NETWORK = NetworkConfig(
    network=Prefix.parse("10.5.0.0/16"),
    subnet_len=24,
    subnet_min=IPv4Address("10.5.1.0"),
    subnet_max=IPv4Address("10.5.255.0"),
    backend=BackendConfig("udp", {}),
)


def ipv6_facts(**changes):
    """The same network with an IPv6 half, in which `gamma` has no part."""
    fields = {
        "network": replace(
            NETWORK,
            ipv6=IPv6Config(
                network=Prefix.parse("fd00:5::/48"),
                subnet_len=64,
                subnet_min=IPv6Address("fd00:5:0:1::"),
                subnet_max=IPv6Address("fd00:5:0:ffff::"),
            ),
        ),
        "ipv6_subnet": Prefix.parse("fd00:5:0:1::/64"),
        "overlay": Overlay(
            device="flannel0", address=IPv4Address("10.5.1.0"), address6=IPv6Address("fd00:5:0:1::"), mtu=1472
        ),
        "leases": (
            lease("10.5.1.0/24", "192.0.2.1", "alpha", "fd00:5:0:1::/64"),
            lease("10.5.3.0/24", "192.0.2.3", "gamma"),
            lease("10.5.2.0/24", "192.0.2.2", "beta", "fd00:5:0:2::/64"),
        ),
    }
    return facts(**{**fields, **changes})


def vxlan_facts(**changes):
    """A backend that leaves its packets to the kernel, in a network where not all nodes have it."""
    fields = {
        "network": replace(NETWORK, backend=BackendConfig("vxlan", {})),
        "port": 8472,
        "source_check": None,
        "overlay": Overlay(
            device="flannel.1",
            device6="flannel-v6.1",
            address=IPv4Address("10.5.1.0"),
            address6=IPv6Address("fd00:5:0:1::"),
            mtu=1450,
        ),
        "offloads": (),
        "leases": (
            lease("10.5.1.0/24", "192.0.2.1", "alpha", backend_type="vxlan"),
            lease("10.5.3.0/24", "192.0.2.3", "gamma", "fd00:5:0:3::/64", backend_type="host-gw"),
            lease("10.5.2.0/24", "192.0.2.2", "beta", backend_type="vxlan"),
        ),
        "routes": 1,
        "infos": (),
        "counters": (),
        "peers": (),
        "kernel": {},
        "rates": Rates(),
    }
    return facts(**{**fields, **changes})


def facts(counts=SOME, **changes):
    fields = {
        "version": "1.2.3",
        "node": "alpha",
        "started_at": STARTED,
        "uptime_s": 3723.25,
        "network": NETWORK,
        "subnet": Prefix.parse("10.5.1.0/24"),
        "port": 8285,
        "source_check": "subnet",
        "endpoint": Endpoint("eth0", 2, 1500, IPv4Address("192.0.2.1"), IPv4Address("192.0.2.1")),
        "overlay": Overlay(device="flannel0", address=IPv4Address("10.5.1.0"), mtu=1472),
        "offloads": ("csum",),
        "registry": RegistryView(kind="static", source="nodes.json", revision=4, synced_at=SYNCED, age_s=3.2),
        "leases": (
            lease("10.5.1.0/24", "192.0.2.1", "alpha"),
            lease("10.5.3.0/24", "192.0.2.3", "gamma"),
            lease("10.5.2.0/24", "192.0.2.2", "beta"),
            lease("10.5.4.0/24", "192.0.2.2"),
        ),
        "routes": 4,
        "infos": counter_infos(),
        "counters": values(counts),
        "peers": (peer("192.0.2.2", path_mtu=1400, path_mtu_left_s=600), peer("192.0.2.3", silent_s=None)),
        "kernel": kernel(flannel0_tx_dropped=0, socket_rx_dropped=9),
        "rates": Rates(tx_packets_per_s=10.0, tx_bits_per_s=12_300_000.0, over_s=5.0),
        "loop_lag_s": 0.0021,
    }
    found = {**fields, **changes}
    found["peers"] = Peers(found["peers"])
    if "seen" not in found:
        found["seen"] = len(found["peers"]) - len(found["peers"].silent) - len(found["peers"].unanswered)
    network = found["network"]
    found["nodes"] = Nodes(found.pop("leases"), network and network.backend.type, found["subnet"])
    return Facts(**found)


class Peers(list):
    """Made-up peers as a table."""

    @property
    def addresses(self):
        return [int(self[i].address) for i in range(len(self))]

    @property
    def silent(self):
        return [i for i in range(len(self)) if self[i].state == "silent"]

    @property
    def unanswered(self):
        return [i for i in range(len(self)) if self[i].state == "unanswered"]
