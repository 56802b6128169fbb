"""The vxlan backend in a real kernel, with real traffic, between nodes of ours: what is there, and what is repaired."""

import pytest
from kernel_overlay import addresses, forwards, kernel_overlay, link, neighbours, routes, shown
from running import Log, becomes, held
from vxlan_facts import MTU, OTHER_MAC, REPAIRED_S, VXLAN, exists, leads_to, mac, whole

from bench.lab import traffic
from bench.lab.routed import RoutedLab
from bench.lab.wait import until

pytestmark = pytest.mark.usefixtures("able")

DIRECT = VXLAN | {"DirectRouting": True}
DAMAGE = {
    "route deleted": ["route delete 10.5.2.0/24"],
    "route changed": ["route replace 10.5.2.0/24 dev cni0"],
    "neighbour deleted": ["neigh delete 10.5.2.0 dev flannel.1"],
    "neighbour changed": [f"neigh replace 10.5.2.0 lladdr {OTHER_MAC} dev flannel.1 nud permanent"],
    "neighbour may be forgotten": ["neigh replace 10.5.2.0 lladdr {mac} dev flannel.1 nud stale"],
    "forwarding deleted": ["fdb delete {mac} dev flannel.1 dst 192.168.77.2"],
    "forwarding changed": ["fdb replace {mac} dev flannel.1 dst 192.168.77.9 self permanent"],
    "forwarding to another port": ["fdb replace {mac} dev flannel.1 dst 192.168.77.2 port 4789 self permanent"],
    "MAC changed": [f"link set flannel.1 address {OTHER_MAC}"],
    "MTU changed": ["link set flannel.1 mtu 1400"],
    "address deleted": ["address delete 10.5.1.0/32 dev flannel.1"],
    "down": ["link set flannel.1 down"],
    "deleted": ["link delete flannel.1"],
    "made anew by another": ["link delete flannel.1", "link add flannel.1 type vxlan id 7 dstport 4789"],
}


@pytest.fixture(scope="module")
def overlay(able):
    with kernel_overlay(VXLAN, pod_mtu=MTU) as made:
        yield made


@pytest.mark.parametrize(("here", "there"), [("a", "b"), ("b", "a")])
def test_pod_pings_pod(overlay, here, there):
    host, other = overlay.lab.host(here), overlay.lab.host(there)
    for size in (None, MTU - 28, 4000):
        found = traffic.ping(host.pod, other.pod_address, size=size)
        assert found.received == found.sent
    found = traffic.ping(host.namespace, other.pod_address)
    assert found.received == found.sent, "from the host itself"


def test_tcp_fills_segments_that_fit(overlay):
    a, b = overlay.lab.hosts
    assert traffic.tcp(traffic.Way(a.pod, b.pod, b.pod_address), seconds=1).received_bytes > 1_000_000
    assert traffic.ping(a.pod, b.pod_address, size=MTU - 28, dont_fragment=True, count=2).received == 2
    assert traffic.ping(a.pod, b.pod_address, size=MTU - 27, dont_fragment=True, count=2).received == 0


def test_the_kernel_is_told_what_flannel_tells_it(overlay):
    a, b = overlay.lab.hosts
    for host, peer in ((a, b), (b, a)):
        found = link(host.namespace, "flannel.1")
        data = found["linkinfo"]["info_data"]
        assert (found["mtu"], found["address"]) == (MTU, mac(host))
        assert (data["id"], data["port"], data["local"], data["link"]) == (1, 8472, host.address, "eth0")
        assert data["learning"] is False
        assert addresses(host.namespace, "flannel.1") == [f"10.5.{host.number}.0/32"]
        assert leads_to(host.namespace, peer)
        assert "onlink" in shown(host.namespace, "route", "show", peer.subnet)[0]["flags"]


def test_the_outside_is_told(overlay):
    a, _ = overlay.lab.hosts
    assert "FLANNEL_MTU=1450" in (overlay.run_directory(a) / "subnet.env").read_text().splitlines()
    status = overlay.status(a)
    assert (status["network"]["backend"], status["network"]["port"]) == ("vxlan", 8472)
    assert (status["interface"]["overlay_device"], status["interface"]["overlay_mtu"]) == ("flannel.1", MTU)
    assert (status["routes"], [peer["node"] for peer in status["peers"]]) == (1, ["b"])
    assert status["verdict"]["text"].startswith("ready, 1 peer")


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_others_do_is_repaired(overlay, damage):
    a, b = overlay.lab.hosts
    log = Log(overlay.process(a))
    with held(overlay.process(a)):  # or it repairs what only the first of two commands did
        for command in DAMAGE[damage]:
            words = command.format(mac=mac(b)).split()
            a.namespace.run("bridge" if words[0] == "fdb" else "ip", *words)
    until(lambda: whole(a, b), REPAIRED_S, f"{damage}: not repaired")
    found = traffic.ping(a.pod, b.pod_address)
    assert found.received == found.sent
    log.shows("repaired: ", REPAIRED_S)
    becomes(overlay, a, "ready", REPAIRED_S)


def test_what_is_none_of_ours_stays(overlay):
    a, b = overlay.lab.hosts
    a.namespace.ip(
        "route add 172.16.0.0/16 via 10.5.2.0 dev flannel.1 onlink",
        "route add 10.5.99.0/24 dev cni0",
        "route add 10.6.0.0/16 dev cni0 proto 117",
        "neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev flannel.1 nud permanent",
        "route delete 10.5.2.0/24",
    )
    until(lambda: b.subnet in routes(a.namespace), REPAIRED_S, "not repaired")
    assert routes(a.namespace).keys() == {b.subnet, "172.16.0.0/16", "10.5.99.0/24", "10.6.0.0/16"}
    assert "192.0.2.7" in neighbours(a.namespace, "flannel.1")
    a.namespace.ip(
        "route delete 172.16.0.0/16",
        "route delete 10.5.99.0/24",
        "route delete 10.6.0.0/16",
        "neigh delete 192.0.2.7 dev flannel.1",
    )


def test_options():
    backend = {"Type": "VXLAN", "vni": 7, "PORT": 4789, "mtu": 1400, "gbp": True, "Learning": True}
    with kernel_overlay(backend, pod_mtu=1350) as overlay:
        a, b = overlay.lab.hosts
        found = link(a.namespace, "flannel.7")
        data = found["linkinfo"]["info_data"]
        assert (data["id"], data["port"], data["learning"], data["gbp"]) == (7, 4789, True, True)
        assert (found["mtu"], found["address"]) == (1350, mac(a, 7))
        assert "FLANNEL_MTU=1350" in (overlay.run_directory(a) / "subnet.env").read_text().splitlines()
        found = traffic.ping(a.pod, b.pod_address)
        assert found.received == found.sent


def test_direct_routing_needs_no_tunnel_on_one_link():
    with kernel_overlay(DIRECT, pod_mtu=MTU) as overlay:
        a, b = overlay.lab.hosts
        assert routes(a.namespace) == {b.subnet: (b.address, "eth0", "117")}
        assert neighbours(a.namespace, "flannel.1") == forwards(a.namespace, "flannel.1") == {}
        found = traffic.ping(a.pod, b.pod_address)
        assert found.received == found.sent
        a.namespace.ip("route delete 10.5.2.0/24")
        until(lambda: b.subnet in routes(a.namespace), REPAIRED_S, "not repaired")
        a.namespace.ip("link delete flannel.1")
        until(lambda: exists(a), REPAIRED_S, "not repaired")


def test_direct_routing_tunnels_past_a_router():
    with kernel_overlay(DIRECT, RoutedLab(), pod_mtu=MTU) as overlay:
        a, b = overlay.lab.hosts
        assert routes(a.namespace)[b.subnet] == ("10.5.2.0", "flannel.1", "117")
        assert forwards(a.namespace, "flannel.1") == {mac(b): b.address}
        found = traffic.ping(a.pod, b.pod_address)
        assert found.received == found.sent
