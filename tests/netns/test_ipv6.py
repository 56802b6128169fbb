"""IPv6 inside the tunnel: hosts a and b have an IPv6 subnet, c has none; the underlay knows IPv4 only."""

import errno
import json
import socket
import time

import packets
import pytest
from counted import Tally
from refusal import refusal
from running import Log, becomes

from bench.lab import traffic
from bench.lab.daemon import PORT, Overlay
from bench.lab.netns import Namespace
from bench.lab.routed import RoutedLab
from bench.lab.topology import NETWORK6, Host, Lab
from bench.lab.wait import until

NOWHERE = "fd00:5:0:c8::1"
"""In the network, in no node's subnet."""
AT_ONCE_S = 2.0
"""What a busy machine may take for what should take a millisecond; every time-out of the kernel is longer."""
WAYS = [("a", "b"), ("b", "a")]
TRIES = 3
"""On a busy machine the receiver itself may not run for a while, and its socket overflows."""
HEADERS_BYTES = 48
"""IPv6 and ICMPv6 echo."""


def edit(overlay: Overlay, change) -> None:
    """Rewrites the registry that all daemons read."""
    path = overlay.lab.directory / "subnets.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def without_ipv6(number: int):
    """An edit that takes a host's IPv6 subnet away."""
    return lambda document: document["Nodes"][number - 1].pop("IPv6Subnet")


@pytest.fixture(scope="module")
def overlay(able):
    with Lab(3, ipv6=True) as lab, Overlay(lab) as overlay:
        edit(overlay, without_ipv6(3))
        overlay.start_all()
        yield overlay
        overlay.stop_all()


@pytest.fixture
def tally(overlay):
    return Tally(overlay, overlay.lab.host("a"))


def overlay_address(host: Host) -> str:
    """flannel0's."""
    return host.subnet6.removesuffix("/64")


def held(namespace: Namespace) -> list[str]:
    """flannel0's IPv6 addresses."""
    [shown] = json.loads(namespace.run("ip", "-j", "-6", "addr", "show", "dev", "flannel0")) or [{}]
    return [f"{it['local']}/{it['prefixlen']}" for it in shown.get("addr_info", [])]


def leads(namespace: Namespace) -> bool:
    """Whether the network leads to flannel0."""
    return f"{NETWORK6} dev flannel0" in namespace.run("ip", "-6", "route")


@pytest.mark.parametrize(("here", "there"), WAYS)
def test_pod_pings_pod(overlay, here, there):
    found = traffic.ping(overlay.lab.host(here).pod, overlay.lab.host(there).pod_address6, count=20)
    assert found.received == found.sent == 20


@pytest.mark.parametrize(("here", "there"), WAYS)
def test_host_pings_host(overlay, here, there):
    host, other = overlay.lab.host(here), overlay.lab.host(there)
    for address in (other.gateway6, overlay_address(other), other.pod_address6):
        found = traffic.ping(host.namespace, address)
        assert found.received == found.sent, address
    found = traffic.ping(host.namespace, other.gateway6, source=host.gateway6)
    assert found.received == found.sent


@pytest.mark.parametrize("size", [0, 1472 - HEADERS_BYTES, 1472 - HEADERS_BYTES + 1, 20000])
def test_every_size_arrives(overlay, size):
    """The last two are cut by the sender, as IPv6 wants it."""
    a, b = overlay.lab.hosts[:2]
    found = traffic.ping(a.pod, b.pod_address6, size=size)
    assert found.received == found.sent


@pytest.mark.parametrize("reverse", [False, True], ids=["a-to-b", "b-to-a"])
def test_tcp_goes_through_both_daemons(overlay, reverse):
    a, b = overlay.lab.hosts[:2]
    sender, receiver = (b, a) if reverse else (a, b)
    before = {host: overlay.carried(host) for host in (sender, receiver)}
    found = traffic.tcp(traffic.Way(a.pod, b.pod, b.pod_address6), seconds=2, reverse=reverse)
    assert found.received_bytes > 1_000_000
    assert (overlay.carried(sender) - before[sender]).tx_bytes > found.received_bytes
    assert (overlay.carried(receiver) - before[receiver]).rx_bytes > found.received_bytes


def test_tcp_from_host_to_host(overlay):
    """To the address of flannel0, which is also the subnet's anycast address, as well as to the bridge's."""
    a, b = overlay.lab.hosts[:2]
    for address in (b.gateway6, overlay_address(b)):
        found = traffic.tcp(traffic.Way(a.namespace, b.namespace, address), seconds=1)
        assert found.received_bytes > 1_000_000, address


def test_udp_at_a_modest_rate_loses_little(overlay):
    a, b = overlay.lab.hosts[:2]
    for _ in range(TRIES):
        found = traffic.udp(traffic.Way(a.pod, b.pod, b.pod_address6), seconds=2, rate="20M")
        assert found.packets > 1000
        if found.loss_percent < 1:
            return
    assert found.loss_percent < 1


def test_ipv4_goes_on_beside_it(overlay):
    for here in overlay.lab.hosts:
        for there in overlay.lab.hosts:
            if here is not there:
                assert traffic.ping(here.pod, there.pod_address, count=3).received == 3


# ---- what nobody owns ----


def refused_connection(namespace: Namespace, address: str) -> tuple[int | None, float]:
    """The errno by which a TCP connection fails, and how long that takes."""
    with namespace.call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM)) as client:
        client.settimeout(30)
        began = time.monotonic()
        with pytest.raises(OSError) as caught:  # noqa: PT011 which one is what the caller asks
            client.connect((address, 80))
        return caught.value.errno, time.monotonic() - began


@pytest.fixture(params=["pod", "host"])
def sender(overlay, request):
    a = overlay.lab.host("a")
    return a.pod if request.param == "pod" else a.namespace


def test_ping_says_unreachable(overlay, sender):
    said = sender.run("ping", "-n", "-c2", "-i0.2", "-W2", NOWHERE, check=False)
    assert said.count(f"From {overlay_address(overlay.lab.host('a'))} icmp_seq=") == 2
    assert said.count("Destination unreachable: Address unreachable") == 2


def test_tcp_fails_at_once(sender):
    found, took = refused_connection(sender, NOWHERE)
    assert (found, took < AT_ONCE_S) == (errno.EHOSTUNREACH, True)


def test_a_peer_without_an_ipv6_subnet_is_sent_none(overlay, sender, tally):
    c = overlay.lab.host("c")
    theirs = Tally(overlay, c)
    found, took = refused_connection(sender, c.pod_address6)
    assert (found, took < AT_ONCE_S) == (errno.EHOSTUNREACH, True)
    tally.await_grown("tx", {"tx_received": 1, "tx_drop_no_route": 1, "tx_icmp_unreachable": 1})
    assert theirs.grown("rx") == {}
    [peer] = [it for it in overlay.status(overlay.lab.host("a"))["peers"] if it["public_ip"] == c.address]
    assert peer["subnets"] == [c.subnet]


def test_a_path_too_narrow_is_told_to_the_sender(able):
    """What fits goes through; what does not is answered with packet too big, and TCP follows."""
    lab = RoutedLab(path_mtu=1400)
    lab.ipv6 = True
    with lab, Overlay(lab) as overlay:
        overlay.start_all()
        a, b = lab.hosts
        fits = 1400 - 28 - HEADERS_BYTES
        said = a.pod.run("ping", "-n", "-c3", "-i0.2", "-W2", "-Mdo", f"-s{fits + 1}", b.pod_address6, check=False)
        assert f"From {overlay_address(a)} icmp_seq=" in said
        assert "Packet too big: mtu=1372" in said
        assert traffic.ping(a.pod, b.pod_address6, size=fits, dont_fragment=True).received == 5
        assert traffic.tcp(traffic.Way(a.pod, b.pod, b.pod_address6), seconds=2).received_bytes > 1_000_000
        assert "mtu 1372" in a.pod.run("ip", "-6", "route", "get", b.pod_address6)
        overlay.stop_all()


# ---- what is let in ----


def from_peer(overlay: Overlay, name: str, source: str) -> None:
    """A datagram from that host to a, which holds an IPv6 packet for a's pod."""
    a, peer = overlay.lab.host("a"), overlay.lab.host(name)
    with packets.udp_socket(peer.namespace, peer.address) as out:
        out.sendto(packets.ipv6(source, a.pod_address6, b"x"), (a.address, PORT))


@pytest.mark.parametrize(
    ("name", "source", "counter"),
    [
        ("b", "fd00:5:0:2::77", "rx_delivered"),
        ("b", "fd00:5:0:3::77", "rx_drop_inner_source"),
        ("b", "2001:db8::77", "rx_drop_inner_source"),
        ("c", "fd00:5:0:3::77", "rx_drop_inner_source"),
        ("b", "fd00:5:0:1::77", "rx_drop_own_source"),
        ("b", "fe80::77", "rx_drop_martian_source"),
        ("b", "ff02::1", "rx_drop_martian_source"),
        ("b", "::", "rx_drop_martian_source"),
        ("b", "::1", "rx_drop_martian_source"),
    ],
)
def test_sources(overlay, tally, name, source, counter):
    from_peer(overlay, name, source)
    tally.await_grown("rx", {"rx_received": 1, counter: 1})


def test_an_address_this_host_gets_is_its_own_at_once(overlay, tally):
    a, mine = overlay.lab.host("a"), "2001:db8::a"
    a.namespace.ip(f"address add {mine}/128 dev lo")
    try:

        def owned() -> bool:
            from_peer(overlay, "b", mine)
            return bool(tally.grown("rx_drop_own"))

        until(owned, 5, "its own address is believed of others")
    finally:
        a.namespace.ip(f"address delete {mine}/128 dev lo")


# ---- what stands on the host ----


def test_subnet_env(overlay):
    a, _, c = overlay.lab.hosts
    assert (overlay.run_directory(a) / "subnet.env").read_text() == (
        "FLANNEL_NETWORK=10.5.0.0/16\n"
        "FLANNEL_SUBNET=10.5.1.1/24\n"
        "FLANNEL_IPV6_NETWORK=fd00:5::/48\n"
        "FLANNEL_IPV6_SUBNET=fd00:5:0:1::1/64\n"
        "FLANNEL_MTU=1472\n"
        "FLANNEL_IPMASQ=false\n"
    )
    assert (overlay.run_directory(c) / "subnet.env").read_text() == (
        "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.3.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n"
    )


def test_flannel0_and_the_status_tell_it(overlay):
    a, _, c = overlay.lab.hosts
    assert (held(a.namespace), leads(a.namespace)) == (["fd00:5:0:1::/128"], True)
    assert (held(c.namespace), leads(c.namespace)) == ([], False)
    here, there = overlay.status(a), overlay.status(c)
    assert (here["network"]["ipv6_network"], here["network"]["ipv6_subnet"]) == (NETWORK6, a.subnet6)
    assert here["interface"]["overlay_ipv6_address"] == overlay_address(a)
    assert (there["network"]["ipv6_network"], there["network"]["ipv6_subnet"]) == (NETWORK6, None)
    assert there["interface"]["overlay_ipv6_address"] is None
    assert (here["routes"], there["routes"]) == (3, 2)


def test_what_goes_missing_comes_back(make_overlay):
    overlay = make_overlay(ipv6=True)
    a, b = overlay.lab.hosts
    switch = ("sysctl", "-qw", "net.ipv6.conf.flannel0.disable_ipv6=1")
    for damage in (
        ("ip", "-6", "route", "delete", NETWORK6, "dev", "flannel0"),
        ("ip", "-6", "address", "delete", f"{overlay_address(a)}/128", "dev", "flannel0"),
        ("ip", "link", "set", "flannel0", "mtu", "1000"),
        ("ip", "link", "delete", "flannel0"),
    ):
        a.namespace.run(*damage)
        until(lambda: traffic.ping(a.pod, b.pod_address6, count=1).received == 1, 10, f"after {' '.join(damage)}")
        until(lambda: held(a.namespace)[:1] == [f"{overlay_address(a)}/128"] and leads(a.namespace), 5, "its place")
    a.namespace.run(*switch)
    becomes(overlay, a, "degraded", 5, "IPv6 is switched off on flannel0: sysctl -w")
    a.namespace.run(*switch[:2], switch[2].replace("=1", "=0"))
    becomes(overlay, a, "ready", 5)
    assert traffic.ping(a.pod, b.pod_address6).received == 5


def test_a_peer_that_gets_an_ipv6_subnet_is_reached_and_one_that_loses_it_is_not(make_overlay):
    overlay = make_overlay(hosts=3, ipv6=True)
    a, _, c = overlay.lab.hosts
    log = Log(overlay.process(a))
    assert traffic.ping(a.pod, c.pod_address6).received == 5
    edit(overlay, without_ipv6(3))
    log.shows("3 nodes, revision 2: routes published", 5)
    assert traffic.ping(a.pod, c.pod_address6, count=1).received == 0
    assert "the IPv6Subnet of this host" in becomes(overlay, c, "degraded", 5, "restart needed")
    edit(overlay, lambda document: document["Nodes"][2].update(IPv6Subnet=c.subnet6))
    log.shows("3 nodes, revision 3: routes published", 5)
    becomes(overlay, c, "ready", 5)
    assert traffic.ping(a.pod, c.pod_address6).received == 5


def test_a_restart_without_ipv6_leaves_none(make_overlay):
    overlay = make_overlay(ipv6=True)
    a, b = overlay.lab.hosts
    overlay.stop(a)
    assert (held(a.namespace), leads(a.namespace)) == (["fd00:5:0:1::/128"], True), "flannel0 outlives its daemon"

    def pure(document) -> None:
        del document["EnableIPv6"], document["IPv6Network"]
        for node in document["Nodes"]:
            del node["IPv6Subnet"]

    edit(overlay, pure)
    overlay.launch(a)
    overlay.await_ready(a)
    assert (held(a.namespace), leads(a.namespace)) == ([], False)
    assert "IPV6" not in (overlay.run_directory(a) / "subnet.env").read_text()
    assert traffic.ping(a.pod, b.pod_address).received == 5
    becomes(overlay, b, "degraded", 5, "IPv6Network has changed from fd00:5::/48 to nothing")


# ---- starts that are refused ----


@pytest.fixture(scope="module")
def idle(able):
    with Lab(ipv6=True) as lab, Overlay(lab) as overlay:
        yield overlay


@pytest.fixture
def registry(idle):
    """The path of the file, which is put back afterwards."""
    path = idle.lab.directory / "subnets.json"
    before = path.read_text()
    yield path
    path.write_text(before)


def test_a_host_without_ipv6_is_told_how_to_go_on(idle, registry):
    a = idle.lab.host("a")
    a.namespace.sysctl("ipv6/conf/default/disable_ipv6", "1")
    try:
        said = refusal(idle, a)
        assert said == (
            "IPv6 is switched off for flannel0: sysctl -w net.ipv6.conf.default.disable_ipv6=0 switches it on, "
            "or take this node's IPv6Subnet away"
        )
        edit(idle, without_ipv6(1))
        idle.launch(a)
        idle.await_ready(a)
        idle.stop(a)
    finally:
        a.namespace.sysctl("ipv6/conf/default/disable_ipv6", "0")
        a.namespace.run("ip", "link", "delete", "flannel0", check=False)
        (idle.run_directory(a) / "subnet.env").unlink(missing_ok=True)


def test_an_mtu_too_small_for_ipv6(idle, registry):
    a = idle.lab.host("a")
    edit(idle, lambda document: document["Backend"].update(MTU=1279))
    assert refusal(idle, a).startswith("IPv6 needs an MTU of 1280 bytes on flannel0, which would have 1279: expected")


def test_another_devices_route_to_the_network(idle, registry):
    a = idle.lab.host("a")
    a.namespace.ip(f"route add {NETWORK6} dev cni0 metric 50")
    try:
        said = refusal(idle, a)
    finally:
        a.namespace.ip(f"route delete {NETWORK6} dev cni0 metric 50")
    assert said.startswith(
        f"the route {NETWORK6} dev cni0 metric 50 is there already and flannel0 needs the same network"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda it: it.pop("IPv6Network"), "please define a correct IPv6Network parameter in the flannel config"),
        (lambda it: it.update(EnableIPv4=False), "EnableIPv4: an IPv6-only network is not built, expected true"),
        (lambda it: it.update(EnableIPv6=False), "Nodes[0].IPv6Subnet: the network has no IPv6: expected no such key"),
        (
            lambda it: it["Nodes"][1].update(IPv6Subnet="fd00:5:0:1::/80"),
            "Nodes[1].IPv6Subnet: fd00:5:0:1::/80 overlaps",
        ),
    ],
)
def test_a_configuration_that_is_wrong(idle, registry, change, words):
    edit(idle, change)
    assert words in refusal(idle, idle.lab.host("a"))


def test_the_kernels_own_reports_are_no_missing_nodes(make_overlay):
    """Each new device has its multicast groups reported (MLD): no node is missing in the registry for that."""
    overlay = make_overlay(ipv6=True)
    tally = Tally(overlay, overlay.lab.host("a"))
    until(lambda: tally.read()["tx_drop_multicast"] >= 1, 20, "the kernel has not reported its groups")
    assert tally.read()["tx_drop_no_route"] == 0
