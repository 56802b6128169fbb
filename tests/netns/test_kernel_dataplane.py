"""The udp backend with the kernel as its dataplane, in a kernel that has FOU, with real traffic.

A mixed network: host a is ours in userspace, host b ours in the kernel, on host c a plain socket plays flanneld.
"""

import random
import signal
import socket
import sys
import threading
from contextlib import ExitStack, nullcontext
from pathlib import Path

import packets
import plain_peer
import pytest
from connections import connection, echoes
from doctored import examine
from fou_facts import KERNEL, finished, fou_ports, kind, peers, require_fou
from kernel_overlay import addresses, edit, link, routes, shown
from probe import probing
from running import Log, becomes

from bench.lab import traffic
from bench.lab.daemon import PORT, Overlay
from bench.lab.topology import Lab
from bench.lab.wait import until

MTU = 1472
REPAIRED_S = 15.0
READ_AGAIN_S = 60.0
"""Rules are read the seldomer, the longer that takes, and nft takes an emulated guest most of a second."""
STREAM_BYTES = 2 << 20
DEADLINE_S = 60
OURS = "port 8285 gue local 192.168.77.2"


@pytest.fixture(scope="module")
def mixed(able):
    require_fou()
    with Lab(3, ipv6=True) as lab, Overlay(lab) as overlay:
        a, b, c = lab.hosts
        edit(overlay, lambda nodes: nodes[2].pop("IPv6Subnet"))
        overlay.launch(a)
        overlay.launch(b, *KERNEL)
        ways = [f"{it.subnet}={it.address}" for it in (a, b)]
        words = (sys.executable, plain_peer.__file__, c.address, str(PORT), str(MTU), "10.5.3.0", *ways)
        player = c.namespace.start(*words, name="plain-peer")
        for host in (a, b):
            overlay.await_ready(host)
        until(lambda: "ready" in Path(player.stdout).read_text(), DEADLINE_S, "the plain peer is not there")
        yield overlay
        overlay.stop_all()


def pairs():
    return [pytest.param(x, y, id=f"{x}-to-{y}") for x in "abc" for y in "abc" if x != y]


@pytest.mark.parametrize(("here", "there"), pairs())
def test_a_stream_is_the_same_at_its_end(mixed, here, there):
    source, target = mixed.lab.host(here), mixed.lab.host(there)
    with readable(source, target):
        stream(source, target, socket.AF_INET, target.pod_address)


def readable(source, target):
    """What the kernel's dataplane sends to the player of flanneld is finished, meanwhile; to others it need not be."""
    kernel = [it for it in (source, target) if it.name == "b"]
    return finished(kernel[0]) if "c" in (source.name, target.name) and kernel else nullcontext()


@pytest.mark.parametrize(("here", "there"), [("a", "b"), ("b", "a")])
def test_a_stream_of_ipv6(mixed, here, there):
    source, target = mixed.lab.host(here), mixed.lab.host(there)
    stream(source, target, socket.AF_INET6, target.pod_address6)


def stream(source, target, family, address):
    data = random.Random(source.number).randbytes(STREAM_BYTES)  # noqa: S311 (not for secrets)
    with ExitStack() as stack:
        server = stack.enter_context(target.pod.call(lambda: socket.create_server((address, PORT), family=family)))
        client = stack.enter_context(source.pod.call(lambda: socket.socket(family)))
        for each in (server, client):
            each.settimeout(DEADLINE_S)
        client.connect((address, PORT))
        program = stack.enter_context(server.accept()[0])
        program.settimeout(DEADLINE_S)
        sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        sender.start()
        found = bytearray()
        while piece := program.recv(1 << 20):
            found += piece
        sender.join()
    assert found == data


@pytest.mark.parametrize(("here", "there"), pairs())
def test_datagrams_of_many_lengths(mixed, here, there):
    source, target = mixed.lab.host(here), mixed.lab.host(there)
    dice = random.Random(7)  # noqa: S311
    with (
        readable(source, target),
        target.pod.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as program,
        source.pod.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client,
    ):
        program.bind((target.pod_address, PORT))
        program.settimeout(DEADLINE_S)
        for length in (0, 1, 2, 1443, 1444, 1445, 2888, 9000):  # 1444: what just fits
            data = dice.randbytes(length)
            client.sendto(data, (target.pod_address, PORT))
            assert program.recv(65535) == data


def test_what_stands_in_the_host(mixed):
    a, b, c = mixed.lab.hosts
    assert (kind(a), kind(b), kind(b, "flannel0-v6")) == ("tun", "ipip", "sit")
    assert fou_ports(b) == [OURS]
    assert fou_ports(a) == []
    assert addresses(b.namespace, "flannel0") == ["10.5.2.0/32"]
    assert addresses(b.namespace, "flannel0-v6", "inet6") == ["fd00:5:0:2::/128"]
    assert link(b.namespace, "flannel0")["mtu"] == link(b.namespace, "flannel0-v6")["mtu"] == MTU
    assert routes(b.namespace) == {
        a.subnet: (a.address, "flannel0", "117"), c.subnet: (c.address, "flannel0", "117")
    }  # fmt: skip
    assert routes(b.namespace, "-6") == {a.subnet6: (f"::{a.address}", "flannel0-v6", "117")}
    assert peers(b) == [a.address, c.address]


def test_the_outside_is_told(mixed):
    _, b, _ = mixed.lab.hosts
    status = mixed.status(b)
    assert status["verdict"]["text"].startswith("ready, 2 peers")
    network = status["network"]
    assert (network["backend"], network["port"]) == ("udp", PORT)
    assert (network["dataplane"], network["source_check"]) == ("kernel", "peer")
    assert mixed.status(mixed.lab.host("a"))["network"]["dataplane"] == "userspace"
    interface = status["interface"]
    assert (interface["overlay_device"], interface["overlay_ipv6_device"]) == ("flannel0", "flannel0-v6")
    assert f"FLANNEL_MTU={MTU}" in (mixed.run_directory(b) / "subnet.env").read_text()


def test_doctor_finds_nothing(mixed):
    examine(mixed, mixed.lab.host("b")).nothing()


def test_a_stranger_gets_nothing_in(mixed):
    """Of four datagrams one comes from a peer's address and from a subnet of a peer."""
    a, b, _ = mixed.lab.hosts
    a.namespace.ip("address add 192.168.77.99/24 dev eth0")
    with b.pod.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as program:
        program.bind((b.pod_address, PORT))
        program.settimeout(DEADLINE_S)
        for outer, inner, data in (
            ("192.168.77.99", a.pod_address, b"a stranger"),
            (a.address, "10.5.2.77", b"one of our own subnet"),
            (a.address, "192.0.2.1", b"one of nowhere"),
            (a.address, a.pod_address, b"a peer"),
        ):
            send(a, outer, b, inner, data)
        assert program.recv(2048) == b"a peer"
        naked(a, b, b"in no datagram")
        gue_of_version_0(a, b, b"in another GUE")
        send(a, a.address, b, a.pod_address, b"the last")
        assert program.recv(2048) == b"the last"
    a.namespace.ip("address delete 192.168.77.99/24 dev eth0")


def send(source, outer, target, inner, data):
    """A packet in a datagram, from any of the source's addresses and any inner one."""
    with source.namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as plain:
        plain.bind((outer, 0))
        plain.sendto(packet(inner, target, data), (target.address, PORT))


def naked(source, target, data):
    """A packet that is IP in IP and comes in no datagram."""
    with source.namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 4)) as raw:
        raw.sendto(packet(source.pod_address, target, data), (target.address, 0))


def gue_of_version_0(source, target, data):
    """Four bytes of a header before the packet, the second of which is its protocol."""
    with source.namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as plain:
        plain.bind((source.address, 0))
        plain.sendto(b"\0\4\0\0" + packet(source.pod_address, target, data), (target.address, PORT))


def packet(inner, target, data):
    return packets.udp((inner, PORT), (target.pod_address, PORT), data)


def test_ipv6_of_1280_crosses_and_what_is_longer_is_told(mixed):
    a, b, _ = mixed.lab.hosts
    for here, there in ((a, b), (b, a)):
        found = traffic.ping(here.pod, there.pod_address6, size=1280 - 48, dont_fragment=True)
        assert found.received == found.sent


@pytest.mark.parametrize(
    "damage",
    [
        ["link delete flannel0"],
        ["link delete flannel0-v6"],
        ["fou delete port 8285 local 192.168.77.2"],
        ["route delete 10.5.1.0/24"],
        ["link set flannel0 down"],
        ["link set flannel0 mtu 1000 alias nobody"],
        ["address delete 10.5.2.0/32 dev flannel0"],
        ["link delete flannel0", "link add flannel0 type ipip local 192.168.77.2 remote 192.168.77.9",
         "link set flannel0 alias udpbackend"],
    ],
    ids=" then ".join,
)  # fmt: skip
def test_what_others_do_is_repaired(mixed, damage):
    a, b, _ = mixed.lab.hosts
    log = Log(mixed.process(b))
    before = standing(b)
    b.namespace.ip(*damage)
    until(lambda: standing(b) == before, REPAIRED_S, f"{damage}: not repaired")
    log.shows("repaired: ", REPAIRED_S)
    for address in (b.pod_address, b.pod_address6):
        found = traffic.ping(a.pod, address)
        assert found.received == found.sent
    becomes(mixed, b, "ready", REPAIRED_S)


def test_rules_that_others_change_are_made_anew(mixed):
    """By the daemon; what else is noticed is test_fou_guard.py's."""
    _, b, _ = mixed.lab.hosts
    before = peers(b)
    for damage in (f"delete element ip udpbackend-8285 peers {{ {before[0]} }}", "delete table ip6 udpbackend-8285"):
        b.namespace.run("nft", damage)
        until(lambda: guarded(b) == (before, 3, 1), READ_AGAIN_S, f"{damage}: not repaired")


def guarded(host):
    """Peers, and how many rules the tables have."""
    text = host.namespace.run("nft", "list", "ruleset", check=False)
    if "table ip udpbackend-8285" not in text:
        return None
    return peers(host), text.count(f"ip daddr {host.address}"), text.count("fib saddr . iif oif missing")


def standing(host):
    """All that leads anywhere."""
    devices = [it for it in shown(host.namespace, "-d", "address", "show") if it["ifname"].startswith("flannel")]
    for it in devices:
        for name in ("ifindex", "ifalias", "operstate"):
            it.pop(name, None)
        for held in it["addr_info"]:
            held.pop("valid_life_time", None)
    found = sorted(devices, key=lambda it: it["ifname"])
    return found, routes(host.namespace), routes(host.namespace, "-6"), fou_ports(host)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_restart_loses_no_packet_and_no_connection(mixed, number):
    """The kernel goes on while no daemon runs, so connections do not wait for it, and new ones can be made."""
    a, b, _ = mixed.lab.hosts
    before, index = standing(b), link(b.namespace, "flannel0")["ifindex"]
    ways = [(a, b, b.pod_address), (b, a, a.pod_address), (a, b, b.pod_address6), (b, a, a.pod_address6)]
    with (
        ExitStack() as stack,
        probing(a.pod, b.pod, b.pod_address) as there,
        probing(b.pod, a.pod, a.pod_address) as back,
    ):
        old = [stack.enter_context(connection(*way)) for way in ways]
        process = mixed.process(b)
        process.send(number)
        process.wait(10)
        assert standing(b) == before
        new = [stack.enter_context(connection(*way)) for way in ways]
        assert all(echoes(*ends, b"meanwhile") for ends in (*old, *new))
        examine(mixed, b).only("daemon")
        log = Log(process)
        mixed.launch(b, *KERNEL)
        log.shows("ready: ", DEADLINE_S)
        mixed.await_ready(b)
        assert all(echoes(*ends, b"after") for ends in (*old, *new))
        assert (there.lost(), back.lost()) == (0, 0)
    assert standing(b) == before
    assert link(b.namespace, "flannel0")["ifindex"] == index
    assert [line for line in log.lines("made ") if "made the rules" not in line] == []


def test_nodes_come_and_go(mixed):
    a, b, c = mixed.lab.hosts
    before = mixed.registry.read_text()
    edit(mixed, lambda nodes: nodes.append({"PublicIP": "192.168.77.9", "Subnet": "10.5.9.0/24"}))
    until(lambda: "10.5.9.0/24" in routes(b.namespace), REPAIRED_S, "the new node is not there")
    assert peers(b) == [a.address, c.address, "192.168.77.9"]
    mixed.registry.write_text(before)
    until(lambda: "10.5.9.0/24" not in routes(b.namespace), REPAIRED_S, "the old node is still there")
    until(lambda: peers(b) == [a.address, c.address], REPAIRED_S, "the old node is still let in")
