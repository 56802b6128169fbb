"""Acquiring a lease from a real etcd: flannel's order and bytes, reservations, races."""

import asyncio
import json
import logging
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest

from udpbackend.errors import ConfigError, RegistryError
from udpbackend.model import Attributes, Prefix
from udpbackend.subnets.etcd import acquire as acquire_module
from udpbackend.subnets.etcd.access import Access
from udpbackend.subnets.etcd.acquire import Acquirer
from udpbackend.subnets.etcd.client import Client
from udpbackend.subnets.etcd.own import FOREVER, TTL_S, Writer
from udpbackend.subnets.etcd.store import Store

NETWORK = {"Network": "10.5.0.0/16"}
DUAL = {**NETWORK, "EnableIPv6": True, "IPv6Network": "fc00::/48"}
OURS = Attributes(IPv4Address("192.168.78.1"))
VALUE = '{"PublicIP":"192.168.78.1","PublicIPv6":null}'
THEIRS = '{"PublicIP":"192.168.78.9","PublicIPv6":null}'


@pytest.fixture
def network(etcd, store, prefix):
    """Acquirers of one network, and the network as etcdctl shows it."""
    return Network(etcd, store, prefix)


class Network:
    def __init__(self, etcd, store, prefix):
        self.etcd, self.store, self.prefix = etcd, store, prefix
        self.before = set(etcd.leases())

    def write(self, config=None, **keys):
        self.put("config", json.dumps({**(config or NETWORK), **keys}))

    def put(self, key, value, *options):
        self.etcd.ctl("put", f"{self.prefix}/{key}", value, *options)

    def reserve(self, subnet, value):
        self.put(f"subnets/{subnet}", value)

    def grant(self, ttl_s=TTL_S):
        return int(self.etcd.ctl("lease", "grant", str(ttl_s)).split()[1], 16)

    def hold(self, subnet, value, ttl_s=TTL_S):
        lease = self.grant(ttl_s)
        self.put(f"subnets/{subnet}", value, f"--lease={lease:x}")
        return lease

    @property
    def keys(self):
        """Keys and values, as etcdctl prints them."""
        lines = self.etcd.ctl("get", "--prefix", f"{self.prefix}/subnets").splitlines()
        return {
            key.removeprefix(f"{self.prefix}/subnets/"): value for key, value in zip(*[iter(lines)] * 2, strict=True)
        }

    @property
    def leases(self):
        return set(self.etcd.leases()) - self.before

    async def acquirer(self, seed=1):
        return Acquirer(Writer(self.store), await self.store.config(), Random(seed))  # noqa: S311  (repeatable)

    async def acquire(self, attributes=OURS, previous=(), seed=1):
        return await (await self.acquirer(seed)).acquire(attributes, prefixes(*previous))


def prefixes(*texts):
    return [Prefix.parse(text) for text in texts]


async def test_a_fresh_lease_is_flannels_to_the_byte(network):
    network.write()
    own = await network.acquire()
    name = str(own.lease.subnet).replace("/", "-")
    assert network.keys == {name: VALUE}
    assert network.leases == {own.lease_id}
    assert f"granted with TTL({TTL_S}s)" in network.etcd.ctl("lease", "timetolive", f"{own.lease_id:x}")
    kv = await network.store.client.get(own.key)
    assert (kv.lease, kv.mod_revision, kv.value) == (own.lease_id, own.mod_revision, own.value)
    assert own.key.decode() == f"{network.prefix}/subnets/{name}"


async def test_a_fresh_dual_stack_lease_announces_ipv6(network):
    network.write(DUAL, SubnetMax="10.5.1.0", IPv6SubnetMin="fc00:0:0:39::", IPv6SubnetMax="fc00:0:0:39::")
    data = b'{"udpbackend":1,"ipv6":true}'
    own = await network.acquire(Attributes(OURS.public_ip, IPv6Address("2001:db8::1"), backend_data=data))
    assert network.keys == {
        "10.5.1.0-24&fc00:0:0:39::-64": '{"PublicIP":"192.168.78.1","PublicIPv6":"2001:db8::1",'
        '"BackendData":{"udpbackend":1,"ipv6":true}}'
    }
    assert [str(subnet) for subnet in own.lease.subnets] == ["10.5.1.0/24", "fc00:0:0:39::/64"]
    assert own.lease.backend_data == data


async def test_our_own_lease_is_kept_and_its_time_starts_anew(network):
    network.write()
    lease = network.hold("10.5.77.0-24", VALUE)
    before = network.etcd.ctl("get", f"{network.prefix}/subnets/10.5.77.0-24", "-w", "json")
    own = await network.acquire()
    assert str(own.lease.subnet) == "10.5.77.0/24"
    assert own.lease_id == lease
    assert network.leases == {lease}
    after = network.etcd.ctl("get", f"{network.prefix}/subnets/10.5.77.0-24", "-w", "json")
    assert json.loads(after)["kvs"] == json.loads(before)["kvs"]  # not written: nobody has anything to learn
    assert TTL_S - 2 <= await network.store.client.lease_time_to_live(lease) <= TTL_S
    assert await (await network.acquirer()).held(OURS.public_ip) == own.lease


async def test_new_attributes_are_written_under_the_lease_the_key_has(network):
    network.write()
    lease = network.hold("10.5.77.0-24", VALUE)
    own = await network.acquire(Attributes(OURS.public_ip, backend_type="vxlan", backend_data=b'{"VNI":1}'))
    assert own.lease_id == lease
    assert network.keys == {"10.5.77.0-24": VALUE.removesuffix("}") + ',"BackendType":"vxlan","BackendData":{"VNI":1}}'}
    assert (await network.store.client.get(own.key)).lease == lease


async def test_a_lease_of_less_than_a_day_is_replaced(network):
    network.write()
    network.hold("10.5.77.0-24", VALUE, 600)
    own = await network.acquire()
    assert str(own.lease.subnet) == "10.5.77.0/24"
    assert await network.store.client.lease_time_to_live(own.lease_id) >= TTL_S - 2


@pytest.mark.parametrize("subnet", ["10.5.0.0-24", "10.5.3.0-25", "10.6.1.0-24", "10.5.3.0-24&fc00:0:0:39::-64"])
async def test_our_own_lease_is_given_up_when_the_configuration_has_changed(network, subnet):
    network.write()
    network.hold(subnet, VALUE)
    own = await network.acquire()
    assert subnet not in network.keys
    assert list(network.keys) == [str(own.lease.subnet).replace("/", "-")]
    assert await (await network.acquirer()).held(IPv4Address("192.168.78.2")) is None


async def test_the_subnets_of_the_last_run_are_preferred(network):
    network.write(DUAL)
    own = await network.acquire(previous=["10.5.99.0/24", "fc00:0:0:99::/64"])
    assert list(network.keys) == ["10.5.99.0-24&fc00:0:0:99::-64"]
    assert own.key.decode().endswith("/10.5.99.0-24&fc00:0:0:99::-64")
    other = await network.acquire(Attributes(IPv4Address("192.168.78.2")), ["10.5.99.0/24", "fc00:0:0:98::/64"])
    assert str(other.lease.subnet) != "10.5.99.0/24"
    assert str(other.lease.ipv6_subnet) == "fc00:0:0:98::/64"


async def test_a_network_that_becomes_dual_stack_leaves_us_our_ipv4_subnet(network):
    network.write(DUAL)
    network.hold("10.5.99.0-24", VALUE)
    own = await network.acquire(previous=["10.5.99.0/24"])
    assert list(network.keys) == [f"10.5.99.0-24&{own.lease.ipv6_subnet}".replace("/", "-")]


async def test_a_reservation_for_us_is_used_and_stays_one(network):
    network.write(SubnetMin="10.5.100.0")
    network.hold("10.5.120.0-24", VALUE)
    network.reserve("10.5.7.0-24", '{"PublicIP":"192.168.78.1"}')
    own = await network.acquire()
    assert (str(own.lease.subnet), own.lease_id, own.expires) == ("10.5.7.0/24", 0, FOREVER)
    assert network.keys["10.5.7.0-24"] == VALUE
    kv = await network.store.client.get(own.key)
    assert (kv.lease, kv.version) == (0, 2)
    assert await network.acquire() == own
    assert (await network.store.client.get(own.key)).version == 2


async def test_a_reservation_that_no_packet_could_reach_is_left_alone(network, caplog):
    network.write()
    network.reserve("10.6.7.0-24", VALUE)
    own = await network.acquire()
    assert str(own.lease.subnet).startswith("10.5.")
    assert network.keys["10.6.7.0-24"] == VALUE
    assert "the reservation of 10.6.7.0/24 for us is of no use" in caplog.text


async def test_reservations_of_others_are_never_taken(network):
    network.write(SubnetMin="10.5.1.0", SubnetMax="10.5.4.0")
    for n in (1, 2, 4):
        network.reserve(f"10.5.{n}.0-24", THEIRS)
    assert str((await network.acquire(previous=["10.5.2.0/24"])).lease.subnet) == "10.5.3.0/24"
    with pytest.raises(ConfigError, match=r"^out of subnets: every /24 from 10\.5\.1\.0 to 10\.5\.4\.0 is taken"):
        await network.acquire(Attributes(IPv4Address("192.168.78.2")))
    assert len(network.keys) == 4
    assert len(network.leases) == 1


async def test_what_cannot_be_read_is_passed_over_once_and_its_subnet_left_alone(network, caplog):
    network.write(SubnetMin="10.5.1.0", SubnetMax="10.5.3.0")
    network.reserve("10.5.1.0-24", "junk")
    network.reserve("10.5.2.0-24", '{"PublicIP":"nowhere"}')
    network.reserve("garbage", "x")
    acquirer = await network.acquirer()
    with caplog.at_level(logging.WARNING):
        assert str((await acquirer.acquire(OURS)).lease.subnet) == "10.5.3.0/24"
        assert await acquirer.held(OURS.public_ip)
    texts = sorted(record.getMessage() for record in caplog.records)
    assert len(texts) == 3
    assert "10.5.1.0-24: expected a lease as JSON" in texts[0]
    assert 'PublicIP: expected the IPv4 address of a host, got "nowhere", in "{\\"PublicIP' in texts[1]
    assert texts[2].endswith(f"/garbage: expected a key like {network.prefix}/subnets/10.5.3.0-24")


async def test_a_younger_lease_of_ours_gives_way_to_an_older_one_that_overlaps_it(network):
    network.write()
    network.hold("10.5.8.0-22", THEIRS)
    network.hold("10.5.9.0-24", VALUE)
    network.hold("10.5.8.0-21", THEIRS.replace("78.9", "78.8"))
    own = await network.acquire()
    assert not own.lease.subnet.overlaps(Prefix.parse("10.5.8.0/21"))
    assert len(network.keys) == 3


async def test_configurations_that_are_missing_or_wrong_are_named(network):
    missing = (
        r"^flannel config not found in etcd store\. Did you create your config using etcdv3 API\? "
        rf"\({network.prefix}/config: no such key\)$"
    )
    with pytest.raises(ConfigError, match=missing):
        await network.store.config()
    network.put("config", '{"Network":"10.5.0.0/30"}')
    with pytest.raises(ConfigError, match=rf"^{network.prefix}/config: network is too small"):
        await network.store.config()


async def test_a_lost_race_is_run_again_and_leaves_no_lease(network, monkeypatch):
    network.write(SubnetMin="10.5.1.0", SubnetMax="10.5.6.0")
    monkeypatch.setattr(acquire_module, "LONGEST_PAUSE_S", 0.0)
    acquirer = await network.acquirer()
    client, grant = network.store.client, network.store.client.lease_grant
    lost = []

    async def granted_while_others_are_faster(ttl_s):
        free = sorted({f"10.5.{n}.0-24" for n in range(1, 7)} - set(network.keys))
        for name in free[: 2 if len(lost) < 2 else 0]:
            network.hold(name, THEIRS)
        lost.append(await grant(ttl_s))
        return lost[-1]

    monkeypatch.setattr(client, "lease_grant", granted_while_others_are_faster)
    own = await acquirer.acquire(OURS)
    assert network.keys[str(own.lease.subnet).replace("/", "-")] == VALUE
    ours = network.leases & set(lost)
    assert ours == {own.lease_id}
    assert len(lost) >= 2


async def test_whoever_is_never_faster_gives_up_after_a_stated_number_of_tries(network, monkeypatch):
    network.write(SubnetMin="10.5.1.0", SubnetMax="10.5.1.0")
    monkeypatch.setattr(acquire_module, "LONGEST_PAUSE_S", 0.0)
    acquirer = await network.acquirer()
    client, put_if = network.store.client, network.store.client.put_if

    async def put_too_late(key, value, lease, revision):
        name = network.hold("10.5.1.0-24", THEIRS)
        outcome = await put_if(key, value, lease, revision)
        await client.lease_revoke(name)
        return outcome

    monkeypatch.setattr(client, "put_if", put_too_late)
    monkeypatch.setattr(acquire_module, "TRIES", 5)
    with pytest.raises(RegistryError, match=r"no subnet for 192\.168\.78\.1 in 5 tries: somebody was always faster"):
        await acquirer.acquire(OURS)
    assert network.leases == set()


@pytest.mark.parametrize(
    ("config", "rounds"),
    [
        ({**NETWORK, "SubnetMax": "10.5.4.0"}, 500),
        # Here no key is written twice: the same IPv4 subnet with another IPv6 subnet is another key.
        ({**DUAL, "SubnetMax": "10.5.4.0", "IPv6SubnetMax": "fc00:0:0:4::"}, 500),
    ],
    ids=["ipv4", "dual"],
)
async def test_two_that_race_never_share_a_subnet(etcd, network, config, rounds):
    network.write(config)
    clients = [Client(etcd.endpoints, Access()) for _ in range(2)]
    racers = [
        Acquirer(Writer(Store(client, network.prefix)), await network.store.config(), Random(seed))  # noqa: S311
        for seed, client in enumerate(clients)
    ]
    met = 0
    for _ in range(rounds):
        one, two = await asyncio.gather(
            *(racer.acquire(Attributes(IPv4Address(f"192.168.78.{n}"))) for n, racer in enumerate(racers, 1))
        )
        standing = [held.lease for held in (await network.store.leases()).held]
        assert sorted(standing, key=lambda lease: lease.public_ip) == [one.lease, two.lease]
        assert not any(a.overlaps(b) for a in one.lease.subnets for b in two.lease.subnets)
        await asyncio.gather(*(network.store.client.lease_revoke(own.lease_id) for own in (one, two)))
        met += 1
    for client in clients:
        await client.close()
    assert met == rounds
    assert network.leases == set()


async def test_a_crowd_that_starts_at_once_shares_what_there_is(network):
    network.write(SubnetMax="10.5.60.0")
    acquirers = [await network.acquirer(seed) for seed in range(60)]
    owns = await asyncio.gather(
        *(one.acquire(Attributes(IPv4Address(f"192.168.79.{n}"))) for n, one in enumerate(acquirers, 1))
    )
    assert len({own.lease.subnet for own in owns}) == 60
    assert network.leases == {own.lease_id for own in owns}
