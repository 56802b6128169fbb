"""Whose address a packet bears: pods of host a, pods of host b, and host c, which is not of the overlay.

Hosts a and b run the daemon; c has an address on the same wire and no way to a pod's own address. Each side tells what
source it sees.
"""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest
from firewall_facts import require

from bench.lab.daemon import Overlay
from bench.lab.netns import Namespace
from bench.lab.topology import NETWORK, NETWORK6, Host, Lab
from udpbackend.host.firewall import Firewall, remove
from udpbackend.host.firewall_rules import FirewallPlan
from udpbackend.model import Prefix

PORT = 7010
FLOOD_PORT = 7011
"""Nobody's else: the kernel remembers for minutes how it treated a flow, whatever the rules are by then."""
WAIT_S = 10.0
SILENCE_S = 0.3
KINDS = pytest.mark.parametrize("nftables", [False, True], ids=["iptables", "nftables"])
OUTSIDE6 = "fd77::"
"""Of the hosts on the wire, where a test gives them IPv6; the host's number is added."""


def plan(host: Host, **more: bool) -> FirewallPlan:
    six = (Prefix.parse(NETWORK6), Prefix.parse(host.subnet6))
    return FirewallPlan(Prefix.parse(NETWORK), Prefix.parse(host.subnet), *six, **{"masquerade": True, **more})


def apply(host: Host, *, nftables: bool, **more: bool) -> None:
    """Puts the rules on the host."""
    host.namespace.call(lambda: asyncio.run(Firewall(plan(host, **more), nftables=nftables).apply()))


def udp(namespace: Namespace, address: str = "", port: int = 0, wait_s: float = WAIT_S) -> socket.socket:
    """A socket that lives there."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(wait_s)
        made.bind((address, port))
        return made

    return namespace.call(make)


def asked(here: Namespace, address: str, there: Namespace, source: str = "") -> str:
    """The source that `there` sees when `here` sends to its address, and the answer comes back."""
    anywhere = "::" if ":" in address else ""
    with udp(there, address, PORT) as server, udp(here, source or anywhere) as client:
        client.sendto(b"question", (address, PORT))
        seen = server.recvfrom(64)[1]
        server.sendto(b"answer", seen)
        assert client.recvfrom(64) == (b"answer", server.getsockname())
        return str(seen[0])


def silent(here: Namespace, address: str, there: Namespace) -> bool:
    """Whether nothing arrives."""
    with udp(there, address, PORT, SILENCE_S) as server, udp(here) as client:
        client.sendto(b"question", (address, PORT))
        try:
            return not server.recv(64)
        except TimeoutError:
            return True


@pytest.fixture(scope="module")
def scene(able: None) -> Iterator[SimpleNamespace]:
    require("iptables", "nft")
    with Lab(3, ipv6=True) as lab, Overlay(lab) as overlay:
        a, b, c = lab.hosts
        for host in (a, b):
            overlay.launch(host, "--iptables-resync=3600")  # the rules are the tests', and not to be repaired
        for host in (a, b):
            overlay.await_ready(host)
        for host in lab.hosts:
            host.namespace.ip(f"address add {OUTSIDE6}{host.number}/64 dev eth0")
        yield SimpleNamespace(a=a, b=b, c=c)
        overlay.stop_all()


@pytest.fixture(autouse=True)
def _clean(scene: SimpleNamespace) -> Iterator[None]:
    yield
    for host in (scene.a, scene.b):
        host.namespace.call(lambda: asyncio.run(remove()))
        host.namespace.run("iptables", "-F")
        host.namespace.run("iptables", "-P", "FORWARD", "ACCEPT")
        host.namespace.run("iptables", "-t", "mangle", "-F")


def test_without_rules_the_outside_sees_a_pods_own_address(scene):
    a, c = scene.a, scene.c
    c.namespace.ip(f"route add {a.subnet} via {a.address}")
    assert asked(a.pod, c.address, c.namespace) == a.pod_address
    c.namespace.ip(f"route delete {a.subnet}")


@KINDS
def test_what_leaves_the_overlay_bears_the_hosts_address_and_is_answered(scene, nftables):
    apply(scene.a, nftables=nftables)
    assert asked(scene.a.pod, scene.c.address, scene.c.namespace) == scene.a.address
    assert asked(scene.a.pod, f"{OUTSIDE6}3", scene.c.namespace) == f"{OUTSIDE6}1"
    answer = scene.a.pod.run("ping", "-n", "-c1", "-W3", scene.c.address)
    assert " 1 received" in answer


@KINDS
def test_between_pods_nothing_is_changed(scene, nftables):
    a, b = scene.a, scene.b
    for host in (a, b):
        apply(host, nftables=nftables)
    for here, there in ((a, b), (b, a)):
        assert asked(here.pod, there.pod_address, there.pod) == here.pod_address
        assert asked(here.pod, there.pod_address6, there.pod) == here.pod_address6
        assert asked(here.pod, there.gateway, there.namespace) == here.pod_address


@KINDS
def test_what_comes_from_outside_keeps_its_address_to_our_pods_and_loses_it_to_others(scene, nftables):
    a, b, c = scene.a, scene.b, scene.c
    for host in (a, b):
        apply(host, nftables=nftables)
    c.namespace.ip(f"route add {NETWORK} via {a.address}")
    try:
        assert asked(c.namespace, a.pod_address, a.pod, c.address) == c.address
        assert asked(c.namespace, b.pod_address, b.pod, c.address) == "10.5.1.0", "that of flannel0 on host a"
    finally:
        c.namespace.ip(f"route delete {NETWORK}")


@KINDS
@pytest.mark.parametrize("mark", ["0x4000", "0x14001"])
def test_what_bears_kube_proxys_mark_is_left_to_it(scene, nftables, mark):
    a, c = scene.a, scene.c
    apply(a, nftables=nftables)
    a.namespace.run(*f"iptables -t mangle -A FORWARD -p udp --dport {PORT} -j MARK --set-mark {mark}".split())
    c.namespace.ip(f"route add {a.subnet} via {a.address}")
    try:
        assert asked(a.pod, c.address, c.namespace) == a.pod_address
    finally:
        c.namespace.ip(f"route delete {a.subnet}")


def test_forward_rules_pass_a_policy_that_drops(scene):
    a, b = scene.a, scene.b
    a.namespace.run("iptables", "-P", "FORWARD", "DROP")
    assert silent(a.pod, b.pod_address, b.pod)
    assert silent(b.pod, a.pod_address, a.pod)
    apply(a, nftables=False, forward=False)
    assert silent(a.pod, b.pod_address, b.pod)
    apply(a, nftables=False, forward=True)
    assert asked(a.pod, b.pod_address, b.pod) == a.pod_address
    assert asked(b.pod, a.pod_address, a.pod) == b.pod_address
    assert asked(a.pod, scene.c.address, scene.c.namespace) == a.address


@contextmanager
def many_flows(here: Namespace, address: str, there: Namespace) -> Iterator[Counter[str]]:
    """Sends datagrams, each a flow of its own, as fast as it can; how often each source is seen."""
    seen: Counter[str] = Counter()
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
                made.sendto(b"question", (address, FLOOD_PORT))

    def receive() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                seen[server.recvfrom(64)[1][0]] += 1

    with udp(there, address, FLOOD_PORT, SILENCE_S) as server:
        threads = [threading.Thread(target=receive), threading.Thread(target=lambda: here.call(send))]
        for thread in threads:
            thread.start()
        try:
            yield seen
        finally:
            over.set()
            for thread in threads:
                thread.join()


@pytest.mark.parametrize("kinds", [(False, False), (True, True), (False, True)], ids=["iptables", "nftables", "both"])
def test_at_no_moment_are_there_no_rules(scene, kinds):
    a, c = scene.a, scene.c
    apply(a, nftables=kinds[0])
    with many_flows(a.pod, c.address, c.namespace) as seen:
        for turn in range(30):
            apply(a, nftables=kinds[turn % 2], fully_random=turn % 2 == 1, forward=turn % 3 == 0)
    assert list(seen) == [a.address]
    assert seen[a.address] > 1000
