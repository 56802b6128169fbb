"""The IPv6 half of the vxlan backend: a device of its own that travels over IPv6."""

from ipaddress import IPv6Address

import pytest
from inside import in_namespace, ip
from kernel_overlay import addresses, edit, forwards, kernel_overlay, link, neighbours, routes
from running import becomes

from bench.lab import traffic
from bench.lab.topology import Lab
from bench.lab.wait import until
from udpbackend.backends.vxlan_peers import derived_mac
from udpbackend.errors import HostError
from udpbackend.host.addresses import select_endpoint
from udpbackend.host.netlink import Netlink
from udpbackend.model import Prefix
from udpbackend.settings import Settings

VXLAN = {"Type": "vxlan"}
TWIN = "flannel-v6.1"
MTU, MTU6 = 1450, 1430
REPAIRED_S = 5.0

pytestmark = pytest.mark.usefixtures("able")


def mac6(host):
    return derived_mac(1, Prefix.parse(host.subnet6)).hex(":")


def leads_to(namespace, peer):
    base = peer.subnet6.partition("/")[0]
    return (
        routes(namespace, "-6").get(peer.subnet6) == (base, TWIN, "117")
        and neighbours(namespace, TWIN, "-6") == {base: mac6(peer)}
        and forwards(namespace, TWIN) == {mac6(peer): f"fd77::{peer.number}"}
    )


@pytest.fixture(scope="module")
def overlay(able):
    with kernel_overlay(VXLAN, Lab(ipv6=True), pod_mtu=MTU) as made:
        yield made


def test_pods_meet_over_both(overlay):
    a, b = overlay.lab.hosts
    for here, there in ((a, b), (b, a)):
        for address in (there.pod_address, there.pod_address6):
            found = traffic.ping(here.pod, address)
            assert found.received == found.sent
            assert traffic.tcp(traffic.Way(here.pod, there.pod, address), seconds=1).received_bytes > 1_000_000


def test_the_kernel_is_told(overlay):
    a, b = overlay.lab.hosts
    for host, peer in ((a, b), (b, a)):
        found = link(host.namespace, TWIN)
        data = found["linkinfo"]["info_data"]
        assert (found["mtu"], found["address"]) == (MTU6, mac6(host))
        assert (data["id"], data["port"], data["local6"]) == (1, 8472, f"fd77::{host.number}")
        assert addresses(host.namespace, TWIN, "inet6") == [f"fd00:5:0:{host.number}::/128"]
        assert leads_to(host.namespace, peer)
        for device in ("flannel.1", TWIN):
            path = f"/proc/sys/net/ipv6/conf/{device}/accept_ra"
            assert host.namespace.run("cat", path).strip() == "0"


def test_the_outside_is_told(overlay):
    a, _ = overlay.lab.hosts
    lines = (overlay.run_directory(a) / "subnet.env").read_text().splitlines()
    assert {"FLANNEL_IPV6_SUBNET=fd00:5:0:1::1/64", "FLANNEL_MTU=1450"} <= set(lines)
    interface = overlay.status(a)["interface"]
    assert (interface["overlay_device"], interface["overlay_ipv6_device"]) == ("flannel.1", TWIN)
    assert interface["overlay_ipv6_address"] == "fd00:5:0:1::"
    assert overlay.status(a)["routes"] == 2


@pytest.mark.parametrize(
    "damage",
    [
        f"ip link delete {TWIN}",
        f"ip link set {TWIN} down",
        "ip -6 route delete fd00:5:0:2::/64",
        f"ip -6 neigh delete fd00:5:0:2:: dev {TWIN}",
        f"ip -6 address delete fd00:5:0:1::/128 dev {TWIN}",
    ],
)
def test_what_others_do_is_repaired(overlay, damage):
    a, b = overlay.lab.hosts
    a.namespace.run(*damage.split())

    def whole():
        there = a.namespace.run("ip", "-br", "link", "show", "up").split()
        return TWIN in there and leads_to(a.namespace, b) and addresses(a.namespace, TWIN, "inet6")

    until(whole, REPAIRED_S, f"{damage}: not repaired")
    found = traffic.ping(a.pod, b.pod_address6)
    assert found.received == found.sent


def test_a_peer_without_a_public_ipv6_is_reached_by_ipv4_alone(overlay):
    a, b = overlay.lab.hosts
    before = overlay.registry.read_text()
    edit(overlay, lambda nodes: nodes[1].pop("PublicIPv6"))
    becomes(overlay, a, "degraded", REPAIRED_S, "node b (fd00:5:0:2::/64) is not reached: its lease has no PublicIPv6")
    assert b.subnet6 not in routes(a.namespace, "-6")
    assert forwards(a.namespace, TWIN) == {}
    found = traffic.ping(a.pod, b.pod_address)
    assert found.received == found.sent
    overlay.registry.write_text(before)
    becomes(overlay, a, "ready", REPAIRED_S)
    assert leads_to(a.namespace, b)


def test_direct_routing_needs_no_tunnel_on_one_link():
    with kernel_overlay(VXLAN | {"DirectRouting": True}, Lab(ipv6=True), pod_mtu=MTU) as overlay:
        a, b = overlay.lab.hosts
        assert routes(a.namespace, "-6")[b.subnet6] == ("fd77::2", "eth0", "117")
        assert forwards(a.namespace, TWIN) == {}
        found = traffic.ping(a.pod, b.pod_address6)
        assert found.received == found.sent


def test_a_host_without_ipv6_of_its_own_is_refused():
    with kernel_overlay(VXLAN, Lab(ipv6=True), pod_mtu=MTU, start=False) as overlay:
        a, _ = overlay.lab.hosts
        a.namespace.ip("address flush dev eth0 scope global", f"address add {a.address}/24 dev eth0")
        process = overlay.launch(a)
        assert process.wait(10) == 1
        assert (
            "interface eth0 has no IPv6 address to meet the peers at: give it one, name another with" in process.tail()
        )
        process = overlay.launch(a, "--public-ipv6=2001:db8::1")
        assert process.wait(10) == 1
        assert "--public-ipv6: expected an address of this host, got 2001:db8::1" in process.tail()
        assert a.namespace.run("ip", "link", "show", "type", "vxlan") == ""
        overlay.__exit__()


@in_namespace
async def test_our_public_ipv6_is_the_interface_s_own():
    ip("link", "add", "eth0", "type", "bridge")
    ip("address", "add", "192.0.2.1/24", "dev", "eth0")
    ip("link", "set", "eth0", "up")
    ip("link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472")
    ip("address", "add", "10.5.1.0/32", "dev", "flannel.1")
    async with Netlink() as netlink:

        async def found(**flags):
            return (await select_endpoint(netlink, Settings(iface=("eth0",), **flags))).public_ipv6

        assert await found() is None
        ip("address", "add", "2001:db8::2/64", "dev", "eth0", "preferred_lft", "0", "valid_lft", "600", "nodad")
        assert await found() is None, "a deprecated one is for nobody"
        ip("address", "add", "2001:db8::3/64", "dev", "eth0", "nodad")
        assert await found() == IPv6Address("2001:db8::3")
        given = IPv6Address("2001:db8::9")
        assert await found(public_ipv6=given) == given
        with pytest.raises(HostError, match=r"Could not match pattern \^10"):
            await select_endpoint(netlink, Settings(iface_regex=("^10",)))
