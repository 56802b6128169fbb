"""What a backend leaves is found by another one, and by nothing else."""

from inside import in_namespace, ip

from udpbackend.dataplane.tun import open_tun
from udpbackend.host.leftovers import Which, find_leftovers, remove_leftovers
from udpbackend.host.mark import ALIAS
from udpbackend.host.netlink import Netlink
from udpbackend.model import Prefix

OURS = [Prefix.parse("10.5.0.0/16"), Prefix.parse("fd00:5::/48")]
TUN = "the device flannel0 with its addresses and routes"
VXLAN = "the device flannel.1 with its addresses and routes"


def host():
    """All that could be left over, with much that must not be touched beside it."""
    ip("link", "add", "eth0", "type", "bridge")
    ip("address", "add", "192.0.2.1/24", "dev", "eth0")
    ip("link", "set", "eth0", "up")
    ip("tuntap", "add", "flannel0", "mode", "tun", "multi_queue", "vnet_hdr")
    for number, address in ((1, "10.5.1.0/32"), (2, "10.6.1.0/32"), (3, "10.5.1.0/32")):
        ip("link", "add", f"flannel.{number}", "type", "vxlan", "id", number, "dstport", "8472")
        ip("address", "add", address, "dev", f"flannel.{number}")
    ip("address", "add", "fd00:5:0:1::/128", "dev", "flannel0", "nodad")
    for name in ("flannel0", "flannel.1", "flannel.2", "eth0"):
        ip("link", "set", name, "alias", ALIAS)
    for name in ("flannel0", "flannel.1", "flannel.2", "flannel.3"):
        ip("link", "set", name, "up")
    ip("route", "add", "10.5.2.0/24", "via", "10.5.2.0", "dev", "flannel.1", "onlink", "proto", "117")
    for network, protocol in (("10.5.3.0/24", 117), ("10.6.2.0/24", 117), ("10.5.4.0/24", 4)):
        ip("route", "add", network, "via", "192.0.2.9", "proto", protocol)
    ip("route", "add", "blackhole", "10.5.1.0/24", "metric", "4294967295", "proto", "117")
    ip("route", "add", "fd00:5:0:3::/64", "dev", "eth0", "proto", "117")


def devices():
    return {link["ifname"] for link in ip("-j", "link", "show")}


def routes():
    return {it["dst"] for it in ip("-j", "route", "show") if it.get("protocol") not in ("kernel", "boot")}


@in_namespace
async def test_one_network_s_leftovers_are_removed():
    host()
    async with Netlink() as netlink:
        which = Which(OURS)
        before = devices(), routes()
        found = await find_leftovers(netlink, which)
        assert set(found) == {
            TUN,
            VXLAN,
            "the route 10.5.3.0/24 via 192.0.2.9",
            "the route fd00:5:0:3::/64",
        }
        assert (devices(), routes()) == before
        assert await remove_leftovers(netlink, which) == found
        assert devices() == {"lo", "eth0", "flannel.2", "flannel.3"}
        assert routes() == {"10.6.2.0/24", "10.5.4.0/24", "10.5.1.0/24"}
        assert await remove_leftovers(netlink, which) == ()


@in_namespace
async def test_what_is_in_use_is_none():
    host()
    async with Netlink() as netlink:
        with open_tun("flannel0"):
            assert await find_leftovers(netlink, Which(OURS, {"flannel.1"}, routes=False)) == ()
            assert await find_leftovers(netlink, Which(OURS, routes=False)) == (VXLAN,)
        assert await find_leftovers(netlink, Which(OURS, {"flannel.1"}, routes=False)) == (TUN,)


@in_namespace
async def test_of_any_network():
    host()
    async with Netlink() as netlink:
        await remove_leftovers(netlink, Which())
        assert devices() == {"lo", "eth0", "flannel.3"}, "what does not bear our mark stays"
        assert routes() == {"10.5.4.0/24", "10.5.1.0/24"}
