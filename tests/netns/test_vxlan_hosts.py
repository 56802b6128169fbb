"""The vxlan backend through what befalls hosts: restarts, other nodes, flanneld before us, a start that is refused."""

import signal

import pytest
from kernel_overlay import addresses, edit, forwards, kernel_overlay, link, neighbours, routes, shown
from probe import probing
from running import Log, becomes
from vxlan_facts import MTU, OTHER_MAC, REPAIRED_S, VXLAN, exists, leads_to, mac, whole

from bench.lab import traffic
from bench.lab.topology import Lab
from bench.lab.wait import until

pytestmark = pytest.mark.usefixtures("able")


@pytest.fixture
def pair():
    """Two hosts of the test's own."""
    with kernel_overlay(VXLAN, pod_mtu=MTU) as made:
        yield made


FITS = "type vxlan id 1 dev eth0 nolearning dstport 8472"


def by_hand(host, peer, *more):
    """What flanneld's vxlan backend does on a host, with the MAC that our nodes take it to have."""
    base, other = host.subnet.partition("/")[0], peer.subnet.partition("/")[0]
    host.namespace.ip(
        f"link add flannel.1 mtu 1450 address {mac(host)} type vxlan id 1 dev eth0 local {host.address} nolearning "
        "dstport 8472",
        *more,
        f"address add {base}/32 dev flannel.1",
        "link set flannel.1 up",
        f"neigh replace {other} lladdr {mac(peer)} dev flannel.1 nud permanent",
    )
    host.namespace.run(
        *("bridge", "fdb", "replace", mac(peer), "dev", "flannel.1", "dst", peer.address, "self", "permanent")
    )
    host.namespace.ip(f"route replace {peer.subnet} via {other} dev flannel.1 onlink")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_restart_loses_no_packet(pair, number):
    a, b = pair.lab.hosts
    index = link(a.namespace, "flannel.1")["ifindex"]
    with probing(a.pod, b.pod, b.pod_address) as there, probing(b.pod, a.pod, a.pod_address) as back:
        for host in (a, b):
            process = pair.process(host)
            process.send(number)
            process.wait(5)
            assert leads_to(host.namespace, b if host is a else a), "what leads to the peers outlives the daemon"
            pair.launch(host)
            pair.await_ready(host)
        assert (there.lost(), back.lost()) == (0, 0)
    assert link(a.namespace, "flannel.1")["ifindex"] == index
    assert leads_to(a.namespace, b)


def test_nodes_come_and_go(pair):
    a, b = pair.lab.hosts

    def add(nodes):
        nodes.append({"Name": "far", "PublicIP": "192.168.77.9", "Subnet": "10.5.9.0/24"})

    edit(pair, add)
    until(lambda: "10.5.9.0/24" in routes(a.namespace), REPAIRED_S, "the new node is not there")
    assert set(forwards(a.namespace, "flannel.1").values()) == {"192.168.77.2", "192.168.77.9"}
    edit(pair, list.pop)
    until(lambda: leads_to(a.namespace, b), REPAIRED_S, "the old node is still there")


def test_what_went_while_no_daemon_ran_is_tidied_up_at_the_start(pair):
    a, b = pair.lab.hosts
    pair.stop(a)
    a.namespace.ip("address add 10.5.77.0/32 dev flannel.1", "address add 10.99.0.1/32 dev flannel.1")
    a.namespace.ip("route add 10.5.7.0/24 via 10.5.7.0 dev flannel.1 onlink proto 117")
    a.namespace.ip(f"neigh add 10.5.7.0 lladdr {OTHER_MAC} dev flannel.1 nud permanent")
    a.namespace.run("bridge", "fdb", "add", OTHER_MAC, "dev", "flannel.1", "dst", "192.168.77.7", "self", "permanent")
    pair.launch(a)
    pair.await_ready(a)
    assert leads_to(a.namespace, b)
    assert addresses(a.namespace, "flannel.1") == ["10.5.1.0/32", "10.99.0.1/32"]


def test_a_refused_route_takes_the_rest_of_its_way_back(pair):
    """An address of this host is no gateway: the kernel refuses the route, and then nobody needs neighbour and MAC."""
    a, b = pair.lab.hosts
    log = Log(pair.process(a))
    a.namespace.ip("address add 10.5.2.0/32 dev lo", "route delete 10.5.2.0/24")
    text = becomes(pair, a, "degraded", REPAIRED_S, "node b (10.5.2.0/24) is not reached: cannot add the route")
    assert "Nexthop has invalid gateway" in text
    assert neighbours(a.namespace, "flannel.1") == forwards(a.namespace, "flannel.1") == {}
    assert pair.status(a)["routes"] == 0
    a.namespace.ip("address delete 10.5.2.0/32 dev lo")
    becomes(pair, a, "ready", REPAIRED_S)
    assert leads_to(a.namespace, b)
    assert len(log.lines("is not reached")) == 1, "told once, however often it was tried"


def test_a_refused_forwarding_entry_leaves_neither_neighbour_nor_route():
    """A device that fits and has room for one entry: of two peers one is reached, the other not by half."""
    with kernel_overlay(VXLAN, Lab(3), pod_mtu=MTU, start=False) as overlay:
        a, b, c = overlay.lab.hosts
        a.namespace.ip(f"link add flannel.1 {FITS} maxaddress 1")
        overlay.launch(a)
        until((overlay.run_directory(a) / "subnet.env").exists, 10, "not started")
        becomes(overlay, a, "degraded", REPAIRED_S, "is not reached: cannot add the forwarding entry")
        assert overlay.status(a)["routes"] == 1
        assert any(leads_to(a.namespace, peer) for peer in (b, c)), "all of the one and nothing of the other"


def test_a_node_set_up_by_hand_is_a_peer():
    with kernel_overlay(VXLAN, pod_mtu=MTU, start=False) as overlay:
        a, b = overlay.lab.hosts
        overlay.launch(a)
        overlay.await_ready(a)
        by_hand(b, a)
        for here, there in ((a, b), (b, a)):
            found = traffic.ping(here.pod, there.pod_address)
            assert found.received == found.sent
            assert (
                traffic.tcp(traffic.Way(here.pod, there.pod, there.pod_address), seconds=1).received_bytes > 1_000_000
            )


def test_what_flanneld_has_made_is_taken_over_under_traffic():
    with kernel_overlay(VXLAN, pod_mtu=MTU, start=False) as overlay:
        a, b = overlay.lab.hosts
        by_hand(a, b, "address add 10.5.44.0/32 dev flannel.1")
        by_hand(b, a)
        index = link(a.namespace, "flannel.1")["ifindex"]
        with probing(a.pod, b.pod, b.pod_address) as there, probing(b.pod, a.pod, a.pod_address) as back:
            overlay.start_all()
            assert (there.lost(), back.lost()) == (0, 0)
        assert link(a.namespace, "flannel.1")["ifindex"] == index
        assert addresses(a.namespace, "flannel.1") == ["10.5.1.0/32"]
        assert leads_to(a.namespace, b)


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ("type vxlan id 1 dev eth0 local 192.168.77.1 nolearning dstport 4789", "the port is 4789, expected 8472"),
        ("type vxlan id 5 dev eth0 local 192.168.77.1 nolearning dstport 8472", "the VNI is 5, expected 1"),
        ("type vxlan id 1 dev eth0 local 192.168.77.1 dstport 8472", "the learning is True, expected False"),
        ("type vxlan id 1 dev cni0 nolearning dstport 8472", "the interface is"),
        ("type vxlan external dstport 8472", "the VNI is"),
        (f"{FITS} local 192.168.77.9", "the local address is 192.168.77.9, expected 192.168.77.1"),
        (f"{FITS} gbp", "the GBP is True, expected False"),
        (f"{FITS} l2miss", "the l2miss is True, expected False"),
        (f"{FITS} group 239.0.0.1", "the group is 239.0.0.1, expected None"),
    ],
)
def test_a_device_that_does_not_fit_is_made_anew(there, why):
    with kernel_overlay(VXLAN, pod_mtu=MTU, start=False) as overlay:
        a, b = overlay.lab.hosts
        a.namespace.ip(f"link add flannel.1 {there}")
        overlay.start_all()
        assert why in overlay.process(a).stderr.read_text()
        assert whole(a, b)


def test_a_stranger_of_the_same_name_is_refused():
    with kernel_overlay(VXLAN, pod_mtu=MTU, start=False) as overlay:
        a, _ = overlay.lab.hosts
        a.namespace.ip("link add flannel.1 type bridge")
        process = overlay.launch(a)
        assert process.wait(10) == 1
        assert "flannel.1 is a bridge device, expected a VXLAN" in process.tail()
        assert shown(a.namespace, "link", "show", "flannel.1")
        overlay.__exit__()


def test_a_start_that_fails_leaves_nothing():
    """The last step of a start is subnet.env: there is a directory of that name."""
    with kernel_overlay(VXLAN, pod_mtu=MTU, start=False) as overlay:
        a, _ = overlay.lab.hosts
        process = overlay.launch(a, f"--subnet-file={overlay.lab.directory}")
        assert process.wait(10) == 1
        assert not exists(a)
        assert routes(a.namespace) == {}
        overlay.__exit__()


def test_nodes_of_another_backend_are_named_and_not_routed_to():
    def udp(nodes):
        nodes[2]["BackendType"] = "udp"

    with kernel_overlay(VXLAN, Lab(3), pod_mtu=MTU, start=False, nodes=udp) as overlay:
        a, b, c = overlay.lab.hosts
        for host in (a, b):
            overlay.launch(host)
        for host in (a, b):
            overlay.await_ready(host)
        assert leads_to(a.namespace, b)
        status = overlay.status(a)
        ignored = {"node": "c", "public_ip": c.address, "backend": "udp", "subnets": [c.subnet]}
        assert (status["ignored"], [peer["node"] for peer in status["peers"]]) == ([ignored], ["b"])
        assert status["verdict"]["text"].startswith("ready, 1 peer, 1 node of another backend ignored")


def test_behind_a_nat_packets_leave_from_the_interface_s_address():
    """--public-ip is then no address of this host; the kernel would send nothing from it."""

    def elsewhere(nodes):
        nodes[0]["PublicIP"] = "203.0.113.1"

    with kernel_overlay(VXLAN, pod_mtu=MTU, start=False, nodes=elsewhere) as overlay:
        a, b = overlay.lab.hosts
        b.namespace.ip(f"route add 203.0.113.1 via {a.address}")
        a.namespace.ip("route add local 203.0.113.1 dev lo")  # what a NAT would do to packets on their way in
        overlay.launch(a, "--public-ip=203.0.113.1")
        overlay.launch(b)
        for host in (a, b):
            overlay.await_ready(host)
        assert link(a.namespace, "flannel.1")["linkinfo"]["info_data"]["local"] == a.address
        found = traffic.ping(a.pod, b.pod_address)
        assert found.received == found.sent


def test_an_underlay_that_comes_back_is_followed(pair):
    """With its interface the device goes too; both peers' pods meet again once both are back."""
    a, b = pair.lab.hosts
    a.namespace.ip("link delete eth0")
    becomes(pair, a, "degraded", REPAIRED_S, "interface eth0 is gone")
    assert not exists(a)
    a.namespace.ip(
        f"link add eth0 mtu 1500 type veth peer name eth0 mtu 1500 netns {b.namespace.name}",
        f"address add {a.address}/24 dev eth0",
        "link set eth0 up",
    )
    b.namespace.ip(f"address add {b.address}/24 dev eth0", "link set eth0 up")
    for host, peer in ((a, b), (b, a)):
        until(lambda host=host, peer=peer: whole(host, peer), REPAIRED_S, "not repaired")
    found = traffic.ping(a.pod, b.pod_address)
    assert found.received == found.sent
    becomes(pair, a, "ready", REPAIRED_S)
