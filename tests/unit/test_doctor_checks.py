"""What the checks of `doctor` make of what they see: the parts that are decided without a host."""

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from doctored_facts import doctor_facts, report
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from udpbackend.cni import subnetenv
from udpbackend.doctor import peers, sizes
from udpbackend.doctor.checks import (
    br_netfilter,
    daemon,
    duplicates,
    firewall,
    interface,
    leftovers,
    other_backend,
    path_mtu,
    reach,
    rp_filter,
    subnet_file,
)
from udpbackend.doctor.checks.duplicates import Claim
from udpbackend.doctor.checks.path_mtu import Narrow
from udpbackend.doctor.checks.reach import Lossy, Silent
from udpbackend.doctor.echo import Answer
from udpbackend.doctor.facts import CniFolders, gather
from udpbackend.doctor.routes import Way
from udpbackend.errors import HostError
from udpbackend.findings.finding import NotChecked
from udpbackend.host import sysctl
from udpbackend.host.interface import Address, Link
from udpbackend.host.netlink import Netlink
from udpbackend.model import Prefix
from udpbackend.observe.report import Ignored, Interface, Network, Peer
from udpbackend.settings import Settings

SUBNET = Prefix.parse("10.5.1.0/24")
ETH0 = Interface(
    name="eth0",
    address="10.0.2.15",
    public_ip="10.0.2.15",
    mtu=1500,
    overlay_device="flannel0",
    overlay_address="10.5.1.0",
    overlay_mtu=1472,
)
NETWORK = Network(network="10.5.0.0/16", subnet="10.5.1.0/24", backend="udp", port=8285, source_check="subnet")


def peer(number, public_ip=None, **more):
    values = {"node": f"n{number}", "port": 8285, "subnets": [f"10.5.{number}.0/24"], **more}
    return Peer(public_ip=public_ip or f"192.0.2.{number}", **values)


def asked(number, **more):
    (one,), _ = peers.choose([peer(number, **more)])
    return one


def link(name, *addresses, index=2):
    return Link(name, index, 1500, tuple(Address(IPv4Address(it)) for it in addresses))


class TestInterface:
    def test_a_peer_that_shows_an_address_every_node_has(self):
        """172.17.0.1, for example, on the bridge of a container engine."""
        names = {IPv4Address("172.17.0.1"): "n2 (172.17.0.1)"}
        (finding,) = interface.to_peers(ETH0, names, {IPv4Address("172.17.0.1"): Way("lo", local=True)})
        assert finding.what == "1 peer known by an address of this very host"

    async def test_no_daemon(self):
        for check in (interface, reach, path_mtu, rp_filter):
            (gap,) = await check.look(doctor_facts())
            assert gap.why.startswith("no daemon answers")
            (gap,) = await check.look(doctor_facts(report=report(waiting_for="a lease")))
            assert gap.why.startswith("the daemon is not ready yet")


class TestDaemon:
    @pytest.mark.parametrize(
        ("changes", "severity", "evidence"),
        [
            ({}, None, ""),
            ({"waiting_for": "a lease"}, "down", "waiting for a lease"),
            ({"waiting_for": "the dataplane", "problems": ("so",)}, "down", "waiting for the dataplane; so"),
            ({"problems": ("flannel0 is down", "and more")}, "part", "flannel0 is down; and more"),
        ],
    )
    def test_its_verdict_is_repeated(self, changes, severity, evidence):
        found = daemon.judge(report(**changes))
        assert [(it.severity, it.evidence) for it in found] == ([(severity, evidence)] if severity else [])

    def test_what_it_waits_for_is_cured_whatever_else_it_says(self):
        (finding,) = daemon.judge(report(waiting_for="a lease", problems=("registry: so",)))
        assert finding.cure.startswith("the registry must give this node a subnet: the daemon goes on by itself")

    async def test_none_answers(self):
        (finding,) = await daemon.look(doctor_facts(silence="not running: nobody listens on /run/x.sock"))
        assert finding.evidence == "not running: nobody listens on /run/x.sock"

    async def test_one_that_this_user_may_not_ask(self):
        async def barred():
            raise HostError("cannot ask on /run/x.sock: permission denied") from PermissionError()

        async with Netlink() as netlink:
            facts = await gather(Settings(), CniFolders(), netlink, barred)
        (finding,) = await daemon.look(facts)
        assert (finding.severity, finding.cure) == ("risk", "run the doctor as root")
        assert facts.why_not_running == "the daemon can be asked by root only"


class TestDuplicates:
    def test_all_different(self):
        claims = [Claim("a", "192.0.2.1", ["10.5.1.0/24", "fd00:5:0:1::/64"]), Claim("b", "", ["10.5.2.0/24"])]
        assert duplicates.judge([*claims, Claim("c", "", ["fd00:5:0:2::/64"])]) == []

    def test_subnets_that_overlap(self):
        claims = [Claim("a", "", ["10.5.0.0/16"]), Claim("b", "", ["10.5.2.0/24"]), Claim("c", "", ["10.5.2.0/24"])]
        (finding,) = duplicates.judge(claims)
        assert finding.what == "2 subnets of more than one node: their pods have the same addresses"
        assert finding.evidence == "10.5.0.0/16 of a and 10.5.2.0/24 of b; 10.5.2.0/24 of b and 10.5.2.0/24 of c"

    async def test_the_daemons_leases(self):
        """It lists the leases of one public IP as one peer; observed.py's has such a one."""
        (finding,) = await duplicates.look(doctor_facts(report=report()))
        assert finding.evidence == (
            "192.0.2.2 is that of beta (192.0.2.2) with 10.5.2.0/24 and beta (192.0.2.2) with 10.5.4.0/24"
        )
        (gap,) = await duplicates.look(doctor_facts())
        assert isinstance(gap, NotChecked)

    async def test_another_node_with_our_address(self):
        found = report()
        peers_ = [peer(2, found.interface.public_ip), peer(3)]
        links = [link("lo", "127.0.0.1"), link("eth0", "192.0.2.1"), link("eth1", "192.168.56.11")]
        links += [link("cni0", "10.5.1.1"), link("flannel0", "10.5.1.0")]
        (finding,) = await duplicates.look(doctor_facts(report=changed(found, peers=peers_), links=links))
        assert finding.severity == "down"
        assert finding.what == "this node is known by 192.0.2.1, and so are others: eth0 is most likely a NAT interface"
        assert finding.evidence.endswith(
            "and this node with 10.5.1.0/24; besides eth0 this host has eth1 [192.168.56.11]"
        )
        assert "--iface" in finding.cure


class TestLeftovers:
    def test_what_belongs_here(self):
        links = [link("lo", "127.0.0.1"), link("cni0", "10.5.1.1"), link("flannel0", "10.5.1.0"), link("flannel.7")]
        assert list(leftovers.devices(links, SUBNET, "flannel0")) == []

    def test_the_device_of_another_backend(self):
        (finding,) = leftovers.devices([link("flannel0", "10.5.1.0")], SUBNET, "flannel.1")
        assert finding.evidence == "flannel0 has 10.5.1.0, the overlay of this node is flannel.1"

    async def test_without_a_subnet(self):
        for check in (leftovers, firewall):
            assert await check.look(doctor_facts()) == [
                NotChecked("what this node's subnet is, neither a daemon nor subnet.env says")
            ]


class TestPathMtu:
    class Path:
        """Lets through what is no larger than `room`, but `lost` of the small ones; of the rest every `chance`-th."""

        def __init__(self, room, chance=0, lost=0):
            self.room, self.chance, self.lost, self.sent = room, chance, lost, 0

        async def ask(self, _address, *, size, **_more):
            self.sent += 1
            lucky = self.chance and self.sent % self.chance == 0
            return Answer(0.001) if size <= self.room or lucky else Answer()

        async def several(self, address, number, *, size, **_more):
            answers = [await self.ask(address, size=size) for _ in range(number)]
            return [Answer()] * self.lost + answers[self.lost :] if size == sizes.SMALL_BYTES else answers

    @given(st.integers(sizes.SMALL_BYTES, 1471))
    def test_the_largest_size_is_found_exactly(self, room):
        found = asyncio.run(path_mtu._measure(self.Path(room), asked(2), 1472))
        assert found.largest == room

    @given(st.integers(0, 70000), st.integers(1, 70000))
    def test_rounds_are_few(self, passes, more):
        fails, rounds = passes + more, 0
        while tried := sizes.between(passes, fails):
            assert passes < min(tried) <= max(tried) < fails
            assert len(tried) <= sizes.AT_ONCE
            passes, rounds = max(tried), rounds + 1  # the widest gap is the last or any other
        assert rounds <= 5
        assert fails - passes == 1

    async def test_a_peer_that_is_silent_or_well(self):
        assert await path_mtu._measure(self.Path(0), asked(2), 1472) == "unsure"
        assert await path_mtu._measure(self.Path(1472), asked(2), 1472) == ""

    @pytest.mark.parametrize("path", [Path(1300, lost=1), Path(1300, chance=5)], ids=["small lost", "large come"])
    async def test_what_is_lost_by_chance_is_no_matter_of_size(self, path):
        assert await path_mtu._measure(path, asked(2), 1472) == "unsure"

    @pytest.mark.parametrize(("found", "least"), [(100, 576), (1279, 1280)])
    def test_no_mtu_is_proposed_that_an_overlay_cannot_have(self, found, least):
        (finding,) = path_mtu.judge([Narrow(asked(2), found)], {}, 1472, least=least)
        assert "Backend.MTU" not in finding.cure
        assert finding.cure.startswith(f"widen the path: an overlay's MTU cannot be less than {least} bytes here")
        assert f"Backend.MTU to {least} " in path_mtu.judge([Narrow(asked(2), least)], {}, 1472, least=least)[0].cure

    def test_a_hole_is_worse_than_a_narrow_path(self):
        lost, told = Narrow(asked(2), 1300), Narrow(asked(3), 1400)
        one, other = path_mtu.judge([lost, told], {"192.0.2.3": 1428}, 1472)
        assert (one.severity, other.severity) == ("part", "risk")
        assert one.evidence == "n2 (192.0.2.2) answers 1300 bytes with DF, not 1472"
        assert "Backend.MTU to 1300 " in one.cure
        assert "Backend.MTU to 1350 " in path_mtu.judge([lost], {}, 1450, "vxlan")[0].cure
        assert path_mtu.judge([], {}, 1472) == []


class TestReach:
    @pytest.mark.parametrize(
        ("host", "port", "what"),
        [
            (Answer(0.001), "", "the overlay of n2 (192.0.2.2) does not answer"),
            (Answer(0.001), "closed", "nobody listens on UDP port 8285 of n2 (192.0.2.2)"),
            (Answer(0.001), "refused", "a firewall refuses UDP port 8285 of n2 (192.0.2.2)"),
            (Answer(), "closed", "nobody listens on UDP port 8285 of n2 (192.0.2.2)"),
            (Answer(), "", "no answer at all comes from the host of n2 (192.0.2.2)"),
        ],
    )
    def test_four_reasons(self, host, port, what):
        (finding,) = reach.judge([Silent(asked(2, silent_s=65.0), Answer(), host, port)], 3, 8285)
        assert finding.what == what
        assert finding.evidence.startswith("n2 (192.0.2.2), last heard of 1m5s ago: 10.5.2.0 through the overlay: no ")

    def test_all_well(self):
        assert reach.judge([], 3, 8285) == reach.losses([]) == []

    def test_what_is_lost_of_one_peer_and_of_several(self):
        (finding,) = reach.losses([Lossy(asked(2), 7, 10)])
        assert finding.what == "7 of 10 echoes of n2 (192.0.2.2) are lost"
        assert finding.severity == "part"
        (finding,) = reach.losses([Lossy(asked(2), 3, 10), Lossy(asked(3, node=""), 9, 10)])
        assert finding.what == "12 of 20 echoes of 2 peers are lost"
        assert "`udp-backend ping 192.0.2.3`" in finding.cure

    async def test_a_backend_without_a_device(self):
        found = report()
        found = changed(found, interface=changed(found.interface, overlay_device=None))
        for check in (reach, path_mtu):
            (gap,) = await check.look(doctor_facts(report=found))
            assert "no device" in gap.why


class TestPeers:
    def test_those_never_heard_of_come_first(self):
        many = [peer(i, silent_s=1.0) for i in range(2, 40)] + [peer(i) for i in range(40, 50)]
        found, gaps = peers.choose(many)
        assert {str(it.subnet) for it in found[:10]} == {f"10.5.{i}.0/24" for i in range(40, 50)}
        assert len(found) == peers.ASKED
        assert gaps == [NotChecked("28 of 48 peers were not asked, 20 are at a time")]
        assert peers.choose(many[:20])[1] == []

    def test_a_peer_without_an_ipv4_subnet_cannot_be_asked(self):
        assert peers.choose([peer(2, subnets=["fd00:5:0:2::/64"])]) == ([], [])
        assert asked(2, subnets=["fd00:5:0:2::/64", "10.5.2.0/24"]).overlay == IPv4Address("10.5.2.0")

    def test_a_nameless_one(self):
        assert peers.called(peer(2, node="")) == "192.0.2.2"


class TestSubnetFile:
    ENV = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n"
    IPV6 = "FLANNEL_IPV6_NETWORK=fd00:5::/48\nFLANNEL_IPV6_SUBNET=fd00:5:0:1::1/64\n"

    def judge(self, text, network=NETWORK):
        return subnet_file.judge("subnet.env", subnetenv.parse(text), network, ETH0)

    @pytest.mark.parametrize(
        ("state", "cure"),
        [(None, "start the daemon"), ("starting", "the daemon writes it"), ("ready", "restart the daemon")],
    )
    def test_missing(self, tmp_path, state, cure):
        finding = subnet_file.absent(tmp_path / "subnet.env", "no such file", state)
        assert finding.what.endswith("is missing: no pod can start on this node")
        assert finding.cure.startswith(cure)

    def test_ipv6(self):
        network = changed(NETWORK, ipv6_network="fd00:5::/48", ipv6_subnet="fd00:5:0:1::/64")
        assert self.judge(self.ENV + self.IPV6, network) == self.judge(self.ENV) == []
        (finding,) = self.judge(self.ENV, network)
        assert finding.evidence == (
            "FLANNEL_IPV6_NETWORK is not there where the daemon has fd00:5::/48; "
            "FLANNEL_IPV6_SUBNET is not there where the daemon has fd00:5:0:1::/64"
        )
        (finding,) = self.judge(self.ENV + self.IPV6)
        assert "FLANNEL_IPV6_SUBNET is fd00:5:0:1::/64 where the daemon has none" in finding.evidence

    def test_a_node_that_carries_no_ipv6_in_a_network_that_does(self):
        assert self.judge(self.ENV, changed(NETWORK, ipv6_network="fd00:5::/48")) == []


class TestKernel:
    def test_keys(self, tmp_path):
        assert sysctl.called("ipv4/conf/eth0.100/rp_filter") == "net.ipv4.conf.eth0/100.rp_filter"
        (tmp_path / "x").write_text("1\n")
        assert sysctl.read("x", tmp_path) == 1
        assert sysctl.read("y", tmp_path) is None
        (tmp_path / "z").mkdir()
        with pytest.raises(HostError, match="cannot read"):
            sysctl.read("z", tmp_path)

    @pytest.mark.parametrize(
        ("value", "kubernetes", "severity"),
        [(1, True, None), (0, False, None), (0, True, "part"), (None, True, "part"), (None, False, "risk")],
    )
    def test_br_netfilter(self, value, kubernetes, severity):
        assert [it.severity for it in br_netfilter.judge(value, kubernetes=kubernetes)] == [severity] * bool(severity)

    def test_a_way_back_that_is_right_was_dropped_for_another_reason(self):
        names = {IPv4Address("192.0.2.2"): "n2"}
        assert (
            rp_filter.judge("eth0", ["ipv4/conf/all/rp_filter"], names, {IPv4Address("192.0.2.2"): Way("eth0")}) == []
        )


class TestOtherBackend:
    async def test_nodes_that_are_ignored(self):
        node = Ignored(node="n7", public_ip="192.0.2.7", backend="vxlan", subnets=["10.5.7.0/24"])
        (finding,) = await other_backend.look(doctor_facts(report=changed(report(), ignored=[node])))
        assert finding.what == "1 node of another backend cannot be reached from here"
        assert finding.evidence == "this node has udp; n7 has vxlan (10.5.7.0/24)"
        assert await other_backend.look(doctor_facts(report=report())) == []


class TestFacts:
    def test_without_a_daemon_the_file_says_what_the_network_is(self):
        env = subnetenv.parse(TestSubnetFile.ENV)
        facts = doctor_facts(env=env)
        assert (str(facts.network), str(facts.subnet)) == ("10.5.0.0/16", "10.5.1.0/24")
        assert doctor_facts().network is None
        running = replace(facts, report=report())
        assert running.running is not None
        assert str(running.subnet) == "10.5.1.0/24"

    @pytest.mark.parametrize("pod", [False, True])
    def test_where_kubernetes_is_in_use(self, monkeypatch, pod):
        if pod:
            monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
        else:
            monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        assert doctor_facts().kubernetes is pod
        assert doctor_facts(report=report()).kubernetes is False, "its registry is a file"
