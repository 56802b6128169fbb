"""The host-gw backend in a real kernel, with real traffic: between our nodes, and with one set up by hand."""

import signal

import pytest
from kernel_overlay import edit, kernel_overlay, routes, shown
from probe import probing
from running import Log, becomes

from bench.lab import traffic
from bench.lab.routed import RoutedLab
from bench.lab.topology import Lab
from bench.lab.wait import until

HOST_GW = {"Type": "host-gw"}
MTU = 1500
REPAIRED_S = 5.0
"""Promised is a second or two; a busy machine may add to it."""

pytestmark = pytest.mark.usefixtures("able")


@pytest.fixture(scope="module")
def overlay(able):
    with kernel_overlay(HOST_GW, Lab(3), pod_mtu=MTU) as made:
        yield made


def wanted(peers):
    return {peer.subnet: (peer.address, "eth0", "117") for peer in peers}


@pytest.mark.parametrize(("here", "there"), [("a", "b"), ("b", "c"), ("c", "a")])
def test_pod_pings_pod(overlay, here, there):
    host, other = overlay.lab.host(here), overlay.lab.host(there)
    for size in (None, MTU - 28, 4000):
        found = traffic.ping(host.pod, other.pod_address, size=size)
        assert found.received == found.sent
    assert traffic.tcp(traffic.Way(host.pod, other.pod, other.pod_address), seconds=1).received_bytes > 1_000_000


def test_there_are_routes_and_no_device(overlay):
    for host in overlay.lab.hosts:
        assert routes(host.namespace) == wanted(set(overlay.lab.hosts) - {host})
        devices = {link["ifname"] for link in shown(host.namespace, "link", "show")}
        assert devices == {"lo", "eth0", "cni0", "pod0"}


def test_the_outside_is_told(overlay):
    a, _, _ = overlay.lab.hosts
    assert "FLANNEL_MTU=1500" in (overlay.run_directory(a) / "subnet.env").read_text().splitlines()
    status = overlay.status(a)
    assert (status["network"]["backend"], status["network"]["port"], status["routes"]) == ("host-gw", None, 2)
    assert status["interface"]["overlay_device"] is None
    assert [peer["node"] for peer in status["peers"]] == ["b", "c"]
    shown_text = a.namespace.run(*_status(overlay, a))
    assert "TX-PACKETS" not in shown_text, "the kernel counts, not we"
    assert "received" not in shown_text


def _status(overlay, host):
    return (overlay.process(host).argv[3], "status", f"--subnet-file={overlay.run_directory(host)}/subnet.env")


@pytest.mark.parametrize(
    "damage",
    [
        ["route delete 10.5.2.0/24"],
        ["route replace 10.5.2.0/24 dev cni0"],
        ["route replace 10.5.2.0/24 via 192.168.77.3"],
        ["route replace 10.5.2.0/24 via 192.168.77.3 proto 117"],
        ["route replace blackhole 10.5.2.0/24"],
        ["link set eth0 down", "link set eth0 up"],
        ["address delete 192.168.77.1/24 dev eth0", "address add 192.168.77.1/24 dev eth0"],
        ["route add 10.5.9.0/24 via 192.168.77.3 proto 117"],
    ],
    ids=" then ".join,
)
def test_what_others_do_is_repaired(overlay, damage):
    a, b, c = overlay.lab.hosts
    log = Log(overlay.process(a))
    a.namespace.ip(*damage)
    until(lambda: routes(a.namespace) == wanted((b, c)), REPAIRED_S, f"{damage}: not repaired")
    log.shows("repaired: ", REPAIRED_S)
    found = traffic.ping(a.pod, b.pod_address)
    assert found.received == found.sent
    becomes(overlay, a, "ready", REPAIRED_S)


def test_what_is_none_of_ours_stays(overlay):
    a, b, c = overlay.lab.hosts
    others = {"10.6.0.0/16", "10.5.99.0/24", "172.16.0.0/16"}
    a.namespace.ip(
        "route add 10.6.0.0/16 via 192.168.77.3 proto 117",
        "route add 10.5.99.0/24 via 192.168.77.3",
        "route add 172.16.0.0/16 via 192.168.77.3",
        "route delete 10.5.2.0/24",
    )
    until(lambda: b.subnet in routes(a.namespace), REPAIRED_S, "not repaired")
    assert routes(a.namespace).keys() == {b.subnet, c.subnet, *others}
    a.namespace.ip(*(f"route delete {other}" for other in others))


def test_an_interface_that_is_down_is_one_problem_and_not_one_for_each_node(overlay):
    a, b, c = overlay.lab.hosts
    a.namespace.ip("link set eth0 down")
    becomes(overlay, a, "degraded", REPAIRED_S, "interface eth0 is down")
    assert overlay.status(a)["verdict"]["reasons"] == ["interface eth0 is down: set it up again (ip link set eth0 up)"]
    a.namespace.ip("link set eth0 up")
    becomes(overlay, a, "ready", REPAIRED_S)
    assert routes(a.namespace) == wanted((b, c))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_restart_loses_no_packet(overlay, number):
    a, b, c = overlay.lab.hosts
    with probing(a.pod, b.pod, b.pod_address) as there, probing(b.pod, a.pod, a.pod_address) as back:
        process = overlay.process(a)
        process.send(number)
        process.wait(5)
        assert routes(a.namespace) == wanted((b, c))
        a.namespace.ip("route add 10.5.9.0/24 via 192.168.77.9 proto 117")  # to a node that is gone by now
        overlay.launch(a)
        overlay.await_ready(a)
        assert (there.lost(), back.lost()) == (0, 0)
    assert routes(a.namespace) == wanted((b, c))


def test_nodes_come_and_go(overlay):
    a, b, c = overlay.lab.hosts
    before = overlay.registry.read_text()
    edit(overlay, lambda nodes: nodes.append({"PublicIP": "192.168.77.9", "Subnet": "10.5.9.0/24"}))
    until(lambda: "10.5.9.0/24" in routes(a.namespace), REPAIRED_S, "the new node is not there")
    overlay.registry.write_text(before)
    until(lambda: routes(a.namespace) == wanted((b, c)), REPAIRED_S, "the old node is still there")


def test_a_node_set_up_by_hand_is_a_peer_and_flannels_routes_are_taken_over():
    with kernel_overlay(HOST_GW, pod_mtu=MTU, start=False) as overlay:
        a, b = overlay.lab.hosts
        for host, peer in ((a, b), (b, a)):
            host.namespace.ip(f"route add {peer.subnet} via {peer.address} dev eth0")
        with probing(a.pod, b.pod, b.pod_address) as there:
            overlay.launch(a)
            overlay.await_ready(a)
            assert there.lost() == 0
        assert routes(a.namespace) == wanted((b,))
        assert routes(b.namespace)[a.subnet][2] == "boot"
        for here, far in ((a, b), (b, a)):
            assert traffic.tcp(traffic.Way(here.pod, far.pod, far.pod_address), seconds=1).received_bytes > 1_000_000


def test_behind_a_nat_it_is_refused():
    with kernel_overlay(HOST_GW, pod_mtu=MTU, start=False) as overlay:
        a, _ = overlay.lab.hosts
        edit(overlay, lambda nodes: nodes[0].update(PublicIP="203.0.113.1"))
        process = overlay.launch(a, "--public-ip=203.0.113.1")
        assert process.wait(10) == 1
        assert (
            "your PublicIP differs from interface IP, meaning that probably you're on a NAT, which is not supported by "
            "host-gw backend: PublicIP is 203.0.113.1, eth0 has 192.168.77.1" in process.tail()
        )
        assert routes(a.namespace) == {}
        overlay.__exit__()


def test_a_node_behind_a_router_is_a_problem_and_the_others_are_reached():
    def far(nodes):
        nodes.append({"Name": "far", "PublicIP": "192.168.99.9", "Subnet": "10.5.9.0/24"})

    with kernel_overlay(HOST_GW, pod_mtu=MTU) as overlay:
        a, b = overlay.lab.hosts
        edit(overlay, far)
        text = becomes(
            overlay, a, "degraded", REPAIRED_S, "node far (10.5.9.0/24) is not reached: cannot add the route"
        )
        assert "host-gw needs all nodes on one link" in text
        assert overlay.status(a)["routes"] == 1
        found = traffic.ping(a.pod, b.pod_address)
        assert found.received == found.sent


def test_with_a_router_in_between_nobody_is_reached():
    with kernel_overlay(HOST_GW, RoutedLab(), pod_mtu=MTU, start=False) as overlay:
        a, _ = overlay.lab.hosts
        overlay.launch(a)
        until((overlay.run_directory(a) / "subnet.env").exists, 10, "not started")
        becomes(overlay, a, "degraded", REPAIRED_S, "node b (10.5.2.0/24) is not reached")


def test_a_start_that_fails_leaves_nothing():
    with kernel_overlay(HOST_GW, pod_mtu=MTU, start=False) as overlay:
        a, _ = overlay.lab.hosts
        process = overlay.launch(a, f"--subnet-file={overlay.lab.directory}")
        assert process.wait(10) == 1
        assert routes(a.namespace) == {}
        overlay.__exit__()


def test_nodes_of_another_backend_are_named_and_not_routed_to():
    with kernel_overlay(HOST_GW, pod_mtu=MTU) as overlay:
        a, _ = overlay.lab.hosts
        edit(overlay, lambda nodes: nodes[1].update(BackendType="vxlan"))
        becomes(overlay, a, "ready", REPAIRED_S, "no peers yet, 1 node of another backend ignored")
        until(lambda: routes(a.namespace) == {}, REPAIRED_S, "a stranger's route is still there")
        assert "IGNORED" in a.namespace.run(*_status(overlay, a))


def test_ipv6_goes_by_the_public_ipv6():
    with kernel_overlay(HOST_GW, Lab(ipv6=True), pod_mtu=MTU) as overlay:
        a, b = overlay.lab.hosts
        assert routes(a.namespace, "-6")[b.subnet6] == ("fd77::2", "eth0", "117")
        for here, there in ((a, b), (b, a)):
            found = traffic.ping(here.pod, there.pod_address6)
            assert found.received == found.sent
        a.namespace.ip("route delete fd00:5:0:2::/64")
        until(lambda: b.subnet6 in routes(a.namespace, "-6"), REPAIRED_S, "not repaired")
        assert overlay.status(a)["routes"] == 2
