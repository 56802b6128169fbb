"""Laboratories whose daemons leave the packets to the kernel (vxlan, host-gw), and what the kernel has been told.

Owns the pods' MTU, the underlay's IPv6 addresses and the edits of the registry that such a test needs. Must not know
what a backend should have done.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from bench.lab.daemon import Overlay
from bench.lab.topology import Host, Lab

UNDERLAY6 = "fd77::"


@contextmanager
def kernel_overlay(backend, lab=None, *, pod_mtu, start=True, nodes=None) -> Iterator[Overlay]:
    """Daemons of a backend, judged at the end. `nodes` edits the registry's list of them before any is started."""
    with lab or Lab() as made, Overlay(made, backend=backend) as overlay:
        for host in made.hosts:
            adapt(host, pod_mtu, ipv6=made.ipv6)
        if made.ipv6 or nodes:
            edit(overlay, lambda found: _with_ipv6(found, made.ipv6), nodes or (lambda _: None))
        if start:
            overlay.start_all()
        yield overlay
        overlay.stop_all()


def adapt(host: Host, pod_mtu, *, ipv6=False):
    """The laboratory's pods have the udp backend's MTU; and its underlay no IPv6."""
    host.namespace.ip(f"link set cni0 mtu {pod_mtu}", f"link set pod0 mtu {pod_mtu}")
    host.pod.ip(f"link set eth0 mtu {pod_mtu}")
    if ipv6:
        host.namespace.ip(f"address add {UNDERLAY6}{host.number}/64 dev eth0 nodad")


def edit(overlay, *changes):
    """Applies functions, each to the list of the registry's nodes, in one edit."""
    document = json.loads(overlay.registry.read_text())
    for change in changes:
        change(document["Nodes"])
    overlay.registry.write_text(json.dumps(document))


def _with_ipv6(nodes, ipv6):
    for number, node in enumerate(nodes, 1) if ipv6 else ():
        node.setdefault("PublicIPv6", f"{UNDERLAY6}{number}")


def shown(namespace, *words):
    """What `ip` knows."""
    return json.loads(namespace.run("ip", "-j", *words) or "[]")


def routes(namespace, *more):
    """Destination -> gateway, device and protocol, of all routes but the kernel's own."""
    found = shown(namespace, *more, "route", "show")
    told = {it["dst"]: (it.get("gateway"), it.get("dev"), it.get("protocol", "boot")) for it in found}
    return {destination: route for destination, route in told.items() if route[2] != "kernel"}


def neighbours(namespace, device, *more):
    """Address -> MAC, of the permanent entries of a device."""
    found = shown(namespace, *more, "neigh", "show", "dev", device, "nud", "permanent")
    return {it["dst"]: it["lladdr"] for it in found}


def forwards(namespace, device):
    """MAC -> outer address, with its port if that is not the device's own, of the forwarding entries of a device."""
    found = json.loads(namespace.run("bridge", "-j", "fdb", "show", "dev", device) or "[]")
    held = (it for it in found if it["state"] == "permanent" and "dst" in it)
    return {it["mac"]: it["dst"] + (f":{it['port']}" if "port" in it else "") for it in held}


def link(namespace, device):
    """A device with its addresses."""
    [found] = shown(namespace, "-d", "address", "show", "dev", device)
    return found


def addresses(namespace, device, family="inet"):
    """What a device carries, link-local addresses apart."""
    held = (it for it in link(namespace, device)["addr_info"] if it["scope"] == "global" and it["family"] == family)
    return [f"{it['local']}/{it['prefixlen']}" for it in held]
