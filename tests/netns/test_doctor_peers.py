"""`doctor` on faults between the nodes, each made for real: closed and filtered ports, narrow paths, wrong ways."""

import re
from contextlib import ExitStack, contextmanager

import doctored
import pytest
from doctored import examine

from bench.lab.daemon import PORT, Overlay
from bench.lab.netns import Namespace
from bench.lab.routed import RoutedLab
from bench.lab.topology import NETWORK, Lab
from bench.lab.wait import until

IDLE = {"kube-rights", "cni-config", "br-netfilter", "clock", "node-ready"}
"""What there is nothing to check of, without Kubernetes."""


@pytest.fixture
def three(make_overlay) -> Overlay:
    return make_overlay(hosts=3)


@contextmanager
def rules(namespace: Namespace, text: str):
    """Rules of nftables, in a table of their own."""
    namespace.run("nft", "-f", "-", text=f"table inet fault {{\n{text}\n}}\n")
    try:
        yield
    finally:
        namespace.run("nft", "delete", "table", "inet", "fault")


def drop(hook: str, match: str) -> str:
    return f"chain {hook} {{ type filter hook {hook} priority -400; {match} drop; }}"


def test_a_healthy_network_has_no_findings(three):
    for host in three.lab.hosts:
        found = examine(three, host)
        found.nothing()
        assert set(found.not_checked) == IDLE
        assert (found.document["node"], found.document["daemon"]) == (host.name, "ready")
    text = three.lab.hosts[0].namespace.run(*doctored.words(three, three.lab.hosts[0]))
    assert text.splitlines()[-1] == f"nothing wrong found ({found.document['checks']} checks, {len(IDLE)} not checked)"


@pytest.mark.parametrize("hook", ["input", "output"])
def test_a_filtered_udp_port_is_told_from_a_dead_host(three, hook):
    a, b, _ = three.lab.hosts
    match = f"udp {'dport' if hook == 'input' else 'sport'} {PORT}"
    with rules(b.namespace, drop(hook, match)):
        finding = examine(three, a).only("reach")
    assert finding["what"] == f"the overlay of b ({b.address}) does not answer"
    assert (
        f"b ({b.address}), never heard of: 10.5.2.0 through the overlay: no answer, its host answers in "
        in (finding["evidence"])
    )
    assert finding["severity"] == "part"
    assert all(it in finding["cure"] for it in (f"UDP port {PORT} is blocked", "security groups", "SNAT"))
    examine(three, a).nothing()


def test_a_firewall_that_says_so_is_called_one(three):
    a, b, _ = three.lab.hosts
    rule = f"udp dport {PORT} reject with icmp type admin-prohibited"
    with rules(b.namespace, f"chain input {{ type filter hook input priority 0; {rule}; }}"):
        finding = examine(three, a).only("reach")
    assert finding["what"] == f"a firewall refuses UDP port {PORT} of b ({b.address})"
    assert "a firewall prohibits it" in finding["evidence"]


def test_what_the_source_check_drops_is_told_where_it_is_dropped(make_overlay):
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    snat = ("POSTROUTING", "-s", a.subnet, "-o", "flannel0", "-j", "SNAT", f"--to-source={a.address}")
    a.namespace.run("iptables", "-t", "nat", "-A", *snat)
    assert examine(overlay, a).only("reach")["what"] == f"the overlay of b ({b.address}) does not answer"
    finding = examine(overlay, b).findings["source-check"]
    assert finding["what"] == "packets are lost: their inner source is not in the sending peer's subnet"
    assert re.match(r"rx_drop_inner_source: \d+ of \d+ in \d+ s", finding["evidence"])
    assert all(it in finding["cure"] for it in ("SNAT, MASQUERADE", NETWORK, "registry"))
    assert finding["severity"] == "part"
    assert overlay.status(b)["verdict"]["state"] == "ready", "a peer cannot make this node unready"


def test_random_loss_is_told_as_loss_and_no_mtu_is_to_blame(three):
    a, b, _ = three.lab.hosts
    with rules(b.namespace, drop("input", 'iifname "flannel0" icmp type echo-request numgen inc mod 3 < 2')):
        finding = examine(three, a).only("reach")
    assert re.fullmatch(rf"\d+ of [12]0 echoes of b \({b.address}\) are lost", finding["what"])
    assert finding["severity"] == "part"
    assert all(f"`{it}`" in finding["cure"] for it in ("udp-backend ping b", "tc -s qdisc", "ip -s link"))


def test_when_every_peer_is_cut_off_it_is_worse(three):
    a = three.lab.hosts[0]
    with rules(a.namespace, drop("input", f"udp dport {PORT}")):
        finding = examine(three, a).only("reach")
    assert finding["what"] == "the overlay of 2 peers of 2 asked does not answer"
    assert finding["severity"] == "down"


def test_a_peer_without_a_daemon_is_told_by_its_closed_port(three):
    a, b, _ = three.lab.hosts
    three.stop(b)
    finding = examine(three, a).only("reach")
    assert finding["what"] == f"nobody listens on UDP port {PORT} of b ({b.address})"
    assert "its port answers that nobody listens" in finding["evidence"]


def test_a_dead_host(three):
    a, b, _ = three.lab.hosts
    b.namespace.ip("link set eth0 down")
    finding = examine(three, a).only("reach")
    assert finding["what"] == f"no answer at all comes from the host of b ({b.address})"
    found = examine(three, b)
    assert {"daemon", "interface", "reach"} <= set(found.findings), "its own doctor says why"
    assert "interface eth0 is down" in found.findings["daemon"]["evidence"]
    b.namespace.ip("link set eth0 up")
    until(lambda: three.status(b)["verdict"]["state"] == "ready", 10, "host b is well again")


@contextmanager
def routed(**options):
    with RoutedLab(**options) as lab, Overlay(lab) as overlay:
        overlay.start_all()
        yield overlay
        overlay.stop_all()


def test_a_black_hole_for_large_packets_is_measured(able):
    with routed(path_mtu=1391) as overlay, ExitStack() as stack:
        for router in overlay.lab._routers:
            stack.enter_context(rules(router, drop("output", "icmp type destination-unreachable")))
        finding = examine(overlay, overlay.lab.hosts[0]).only("path-mtu")
    assert finding["what"] == "large packets to 1 peer vanish: the path is narrower than the overlay's MTU"
    assert "b (192.168.77.2) answers 1363 bytes with DF, not 1472" in finding["evidence"]
    assert "Backend.MTU to 1363" in finding["cure"]
    assert finding["severity"] == "part"


def test_a_narrow_path_that_says_so_is_a_risk(able):
    with routed(path_mtu=1400) as overlay:
        finding = examine(overlay, overlay.lab.hosts[0]).only("path-mtu")
    assert finding["severity"] == "risk"
    assert "answers 1372 bytes with DF, not 1472" in finding["evidence"]


def second_link(lab: Lab):
    """Another link between the two hosts, by which host a sends to the other's public IP."""
    a, b = (host.namespace for host in lab.hosts)
    lab._veth(a, "eth1", b, 1500, there="eth1")
    for namespace, address in ((a, "192.168.79.1/24"), (b, "192.168.79.2/24")):
        namespace.ip(f"address add {address} dev eth1", "link set eth1 up")
    b.sysctl("ipv4/conf/all/rp_filter", "0")
    b.sysctl("ipv4/conf/eth1/rp_filter", "0")
    a.ip("route add 192.168.77.2/32 via 192.168.79.2 dev eth1")


@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
def test_a_peer_reached_by_another_interface_and_what_rp_filter_makes_of_it(make_overlay, strict):
    overlay = make_overlay()
    a = overlay.lab.hosts[0]
    second_link(overlay.lab)
    a.namespace.sysctl("ipv4/conf/all/rp_filter", "0")
    a.namespace.sysctl("ipv4/conf/eth0/rp_filter", str(int(strict)))
    found = examine(overlay, a)
    wrong = found.only("interface", *(["rp-filter", "reach"] if strict else []))
    assert wrong["what"] == "datagrams to 1 peer leave by another interface than eth0, which was chosen"
    assert wrong["evidence"] == "b (192.168.77.2) by eth1"
    if strict:
        finding = found.findings["rp-filter"]
        assert finding["what"] == "the reverse-path filter drops what comes in by eth0 from 1 peer"
        assert finding["evidence"] == (
            "net.ipv4.conf.eth0.rp_filter is 1, and the ways back are to b (192.168.77.2) by eth1"
        )
        a.namespace.sysctl("ipv4/conf/eth0/rp_filter", "2")
        examine(overlay, a).only("interface")


def test_ways_chosen_by_the_source_are_understood(make_overlay):
    """The main table would send by eth1; a rule sends what comes from the daemon's own address by eth0."""
    overlay = make_overlay()
    a = overlay.lab.hosts[0]
    second_link(overlay.lab)
    a.namespace.ip(f"rule add from {a.address} lookup 100", "route add 192.168.77.0/24 dev eth0 table 100")
    a.namespace.sysctl("ipv4/conf/eth0/rp_filter", "1")
    examine(overlay, a).nothing()


def test_strict_rp_filter_alone_harms_nobody(make_overlay):
    overlay = make_overlay()
    a = overlay.lab.hosts[0]
    for device in ("all", "eth0", "flannel0", "cni0"):
        a.namespace.sysctl(f"ipv4/conf/{device}/rp_filter", "1")
    examine(overlay, a).nothing()


def test_an_overlay_filtered_by_a_route_that_leads_elsewhere(make_overlay):
    overlay = make_overlay()
    a = overlay.lab.hosts[0]
    a.namespace.sysctl("ipv4/conf/flannel0/rp_filter", "1")
    a.namespace.ip("link add br9 type bridge", "link set br9 up", "route add 10.5.2.0/24 dev br9")
    found = examine(overlay, a)
    assert found.findings["leftovers"]["evidence"] == "10.5.2.0/24 dev br9"
    assert found.findings["rp-filter"]["evidence"].endswith("the ways back are to pods of b (192.168.77.2) by br9")
    assert set(found.findings) == {"leftovers", "rp-filter"}, "no peer is called silent"


def test_a_route_to_a_peer_back_into_the_overlay(make_overlay):
    overlay = make_overlay()
    a = overlay.lab.hosts[0]
    a.namespace.ip("route add 192.168.77.2/32 dev flannel0")
    found = examine(overlay, a)
    assert found.findings["interface"]["what"] == "datagrams to 1 peer go back into flannel0, for ever"
    assert found.findings["interface"]["severity"] == "down"
    a.namespace.ip("route delete 192.168.77.2/32 dev flannel0")


def test_a_peer_without_a_route(make_overlay):
    overlay = make_overlay()
    a = overlay.lab.hosts[0]
    a.namespace.ip("route add unreachable 192.168.77.2/32")
    found = examine(overlay, a)
    assert found.findings["interface"]["what"] == "there is no way to the public IP of 1 peer"
    assert found.findings["interface"]["evidence"] == "b (192.168.77.2): No route to host"


def test_a_peer_that_is_known_by_an_address_every_node_has(able):
    """That of the bridge of a container engine, which is the same everywhere."""
    other = {"Name": "c", "PublicIP": "172.17.0.1", "Subnet": "10.5.9.0/24"}
    with Lab() as lab, Overlay(lab, others=[other]) as overlay:
        a = lab.hosts[0]
        a.namespace.ip("link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0", "link set docker0 up")
        overlay.start_all()
        finding = examine(overlay, a).only("interface", "reach")
    assert finding["what"] == "1 peer known by an address of this very host"
    assert finding["evidence"] == "c (172.17.0.1)"


def test_an_address_that_is_lost(make_overlay):
    overlay = make_overlay()
    a = overlay.lab.hosts[0]
    a.namespace.ip(f"address delete {a.address}/24 dev eth0", "address add 192.168.77.99/24 dev eth0")
    found = examine(overlay, a)
    assert found.findings["interface"]["what"] == (
        "this node is known by 192.168.77.1, which no interface of it has any longer"
    )
    assert "192.168.77.99" in found.findings["interface"]["evidence"]


def test_without_the_right_to_send_echoes_the_rest_is_checked(three):
    a = three.lab.hosts[0]
    a.namespace.sysctl("ipv4/ping_group_range", "1 0")
    found = examine(three, a, before=("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", "--"))
    found.nothing()
    assert set(found.not_checked) == IDLE | {"reach", "path-mtu"}
    assert "needs the capability NET_RAW" in found.not_checked["reach"]
    a.namespace.sysctl("ipv4/ping_group_range", f"0 {2**31 - 1}")
    examine(three, a, before=("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", "--")).nothing()
