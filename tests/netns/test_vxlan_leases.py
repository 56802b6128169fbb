"""The vxlan backend and the leases that registries hand it: ours, other nodes', old and broken ones."""

import logging
from ipaddress import IPv4Address

from inside import in_namespace, ip
from vxlan_alone import HELD, MAC, OWN, A, bridge, device_mac, lease, make, neighbours, routes, started, underlay

from udpbackend.backends.vxlan_peers import backend_data, derived_mac
from udpbackend.host.netlink import Netlink
from udpbackend.model import Lease, Prefix, Snapshot


@in_namespace
async def test_the_lease_says_what_flannel_s_says():
    underlay()
    async with Netlink() as netlink:
        attributes = await make(netlink).prepare(None)
        assert ip("link", "show", "type", "vxlan") == "", "preparing changes nothing"
    assert (attributes.backend_type, attributes.public_ipv6, attributes.backend_v6_data) == ("vxlan", None, None)
    data = attributes.backend_data.decode()
    assert data.startswith('{"VNI":1,"VtepMAC":"')
    first = int(data[20:22], 16)
    assert (first & 1, first & 2) == (0, 2), "one device's, locally administered"


FITS = "type vxlan id 1 dev eth0 nolearning dstport 8472"
UNFIT = {
    "another address": f"{FITS} local 192.0.2.77",
    "another port": "type vxlan id 1 dev eth0 nolearning dstport 4789",
}


@in_namespace
async def test_our_mac_is_the_lease_s_or_derived_or_one_of_its_own():
    underlay()
    there = bytes.fromhex("020000000077")
    async with Netlink() as netlink:
        for held, device, expected in (
            (HELD, None, MAC),
            (HELD, FITS, MAC),
            (Lease(OWN, HELD.public_ip), FITS, derived_mac(1, OWN)),
            (Lease(OWN, HELD.public_ip), UNFIT["another address"], derived_mac(1, OWN)),
            (Lease(OWN, HELD.public_ip), None, derived_mac(1, OWN)),
            # The MAC of a device is in the lease of the address it was made for; that it fits does not say it is ours.
            (None, FITS, None),
            (Lease(OWN, HELD.public_ip, backend_data=b'{"VNI":5}'), FITS, None),
            (HELD, UNFIT["another address"], None),
            (HELD, UNFIT["another port"], None),
        ):
            if device:
                ip("link", "add", "flannel.1", "address", there.hex(":"), *device.split())
            backend, attributes = await started(netlink, held=held)
            said = device_mac()
            assert attributes.backend_data == backend_data(1, said)
            assert said == expected if expected else said not in (there, MAC)
            await backend.remove()
        random = {(await make(netlink).prepare(None)).backend_data for _ in range(3)}
        assert len(random) == 3


@in_namespace
async def test_a_broken_lease_costs_its_own_node_only(caplog):
    underlay()
    broken = {
        A + 1: (b"null", "VtepMAC: expected a MAC address, got nothing"),
        A + 2: (b"{", "not valid JSON"),
        A + 3: (b'{"VNI":1,"VtepMAC":"x"}', 'VtepMAC: expected a MAC address, got "x"'),
        A + 4: (b'{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}', "VtepMAC: expected the address of one device"),
        A + 5: (b'{"VNI":9,"VtepMAC":"02:00:00:00:00:05"}', "its VNI is 9, expected 1"),
        A + 6: (backend_data(1, MAC), "that of this host too"),
        A: (lease(A).backend_data, f"that of node n{A + 7} (10.5.9.0/24) too, whose lease is newer"),
    }
    leases = (*(lease(number, said) for number, (said, _) in broken.items()), lease(A + 7, lease(A).backend_data))
    async with Netlink() as netlink:
        with caplog.at_level(logging.WARNING):
            backend, _ = await started(netlink, *leases)
            for revision in (2, 3):
                await backend.apply(Snapshot((HELD, *leases), revision))
        facts = await backend.facts()
    assert facts.routes == 1
    assert routes() == {"10.5.9.0/24"}
    for number, (_, why) in broken.items():
        [problem] = [it for it in facts.problems if it.startswith(f"node n{number} ")]
        assert problem.startswith(f"node n{number} (10.5.{number & 255}.0/24) is not reached: ")
        assert why in problem
    assert len(caplog.records) == len(broken), "each is told once"


@in_namespace
async def test_a_peer_s_lease_without_data_means_a_derived_mac():
    underlay()
    async with Netlink() as netlink:
        await started(netlink, lease(A, None))
    assert derived_mac(1, Prefix.parse("10.5.2.0/24")).hex(":") in neighbours()[0]


@in_namespace
async def test_a_peer_with_a_new_mac_or_address_is_followed():
    underlay()
    async with Netlink() as netlink:
        backend, _ = await started(netlink, lease(A))
        data = backend_data(1, bytes.fromhex("0200000000aa"))
        moved = Lease(lease(A).subnet, int(IPv4Address("192.0.3.9")), "n", backend_data=data)
        await backend.apply(Snapshot((HELD, moved), 2))
    assert neighbours() == ["10.5.2.0 lladdr 02:00:00:00:00:aa PERMANENT "]
    assert "02:00:00:00:00:aa dst 192.0.3.9 self permanent" in bridge()
    assert bridge().count("permanent") == 1


@in_namespace
async def test_one_node_with_two_leases_and_an_old_one_of_ours():
    """A node that has got another subnet is in the registry twice for a day, with the same MAC; and so are we."""
    underlay()
    again = Lease(Prefix.parse("10.5.9.0/24"), lease(A).public_ip, "again", backend_data=lease(A).backend_data)
    old = Lease(Prefix.parse("10.5.8.0/24"), HELD.public_ip, "me", backend_data=HELD.backend_data)
    async with Netlink() as netlink:
        backend, _ = await started(netlink, lease(A), again, old)
        assert (await backend.facts()).problems == ()
        assert routes() == {"10.5.2.0/24", "10.5.9.0/24"}
        ip("address", "add", "10.5.9.0/32", "dev", "lo")
        ip("route", "delete", "10.5.9.0/24")
        await backend.apply(Snapshot((HELD, lease(A), again, old), 2))
        assert len((await backend.facts()).problems) == 1
        assert bridge().count("permanent") == 1, "the refused way takes back only what no other needs"
        assert routes() == {"10.5.2.0/24"}
