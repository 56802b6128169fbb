"""The vxlan backend without a daemon, in the namespace it is called in: leases as registries give them.

Owns a host with one interface and the leases of made-up nodes. Must not know what a test expects.
"""

import subprocess
from ipaddress import IPv4Address

from inside import ip

from udpbackend.backends import vxlan
from udpbackend.backends.backend import Context
from udpbackend.backends.vxlan_peers import backend_data
from udpbackend.model import Endpoint, Lease, Prefix, Snapshot
from udpbackend.settings import Settings
from udpbackend.subnets.config import parse_config

OWN = Prefix.parse("10.5.1.0/24")
MAC = bytes.fromhex("02aabbccdd01")


def lease(number, said=b"", **fields):
    """That of the node of a number; by default as flannel writes it."""
    data = backend_data(1, bytes((2, 0, 0, 0, number >> 8, number & 255))) if said == b"" else said
    return Lease(
        Prefix((10 << 24) + (number << 8), 24),
        int(IPv4Address("192.0.2.0")) + number,
        f"n{number}",
        backend_type="vxlan",
        backend_data=data,
        **fields,
    )


HELD = Lease(OWN, int(IPv4Address("192.0.2.1")), "me", backend_type="vxlan", backend_data=backend_data(1, MAC))
A = 0x0502
"""The number of the first peer: 10.5.2.0/24."""


def underlay():
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "far")
    ip("address", "add", "192.0.2.1/16", "dev", "eth0")
    ip("link", "set", "eth0", "up")
    ip("link", "set", "far", "up")


def make(netlink, options="", network="10.5.0.0/16"):
    [link] = ip("-j", "link", "show", "eth0")
    own = IPv4Address("192.0.2.1")
    return vxlan.backend(
        Context(
            config=parse_config(f'{{"Network": "{network}", "Backend": {{"Type": "vxlan"{options}}}}}'),
            endpoint=Endpoint("eth0", link["ifindex"], 1500, own, own),
            netlink=netlink,
            settings=Settings(),
            published=lambda _: None,
        )
    )


async def started(netlink, *leases, held=HELD, **options):
    backend = make(netlink, **options)
    attributes = await backend.prepare(held)
    await backend.start(held or HELD, Snapshot((HELD, *leases), 1))
    return backend, attributes


def device_mac():
    return bytes.fromhex(ip("-j", "link", "show", "flannel.1")[0]["address"].replace(":", ""))


def routes():
    return {it["dst"] for it in ip("-j", "route", "show", "proto", "117")}


def neighbours():
    return ip("neigh", "show", "dev", "flannel.1", "nud", "permanent").splitlines()


def bridge():
    words = ("bridge", "fdb", "show", "dev", "flannel.1")
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
