"""The static registry: checking a file as a whole, finding this host in it, and following edits of a real file."""

import asyncio
import contextlib
import json
import logging
import os
import time
from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.errors import ConfigError, HostError, UdpBackendError
from udpbackend.subnets import static
from udpbackend.subnets.nodes import parse_nodes
from udpbackend.subnets.static import StaticSubnets

DEADLINE_S = 5.0
LOG = "udpbackend.subnets.static"


def node(name, public_ip, subnet):
    return {"Name": name, "PublicIP": public_ip, "Subnet": subnet}


ALPHA = node("alpha", "192.0.2.1", "10.5.1.0/24")
BETA = node("beta", "192.0.2.2", "10.5.2.0/24")
GAMMA = node("gamma", "192.0.2.3", "10.5.3.0/24")


def text(*nodes, **more):
    return json.dumps({"Network": "10.5.0.0/16", **more, "Nodes": nodes})


def refused(*nodes, **more):
    with pytest.raises(ConfigError) as caught:
        parse_nodes(text(*nodes, **more).encode())
    return str(caught.value)


def test_a_good_file_is_read_in_the_order_of_subnets():
    config, leases = parse_nodes(text(GAMMA, ALPHA, BETA | {"Rack": 7}).encode())
    assert str(config.network) == "10.5.0.0/16"
    assert [(lease.node, str(lease.public_address), str(lease.subnet)) for lease in leases] == [
        ("alpha", "192.0.2.1", "10.5.1.0/24"),
        ("beta", "192.0.2.2", "10.5.2.0/24"),
        ("gamma", "192.0.2.3", "10.5.3.0/24"),
    ]


def test_keys_match_in_any_case_and_names_are_optional():
    data = b"""{"network": "10.5.0.0/16", "nodes": [{"publicip": "192.0.2.1", "SUBNET": "10.5.1.0/30"},
                                                    {"publicIP": "192.0.2.2", "subnet": "10.5.128.0/17"}]}"""
    assert [str(lease.subnet) for lease in parse_nodes(data)[1]] == ["10.5.1.0/30", "10.5.128.0/17"]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([7], "Nodes[0]: expected an object, got 7"),
        ([{}], "Nodes[0].PublicIP: expected the IPv4 address of a host, got nothing"),
        ([ALPHA | {"PublicIP": 5}], "Nodes[0].PublicIP: expected a string, got 5"),
        ([ALPHA | {"PublicIP": "::1"}], "Nodes[0].PublicIP: expected the IPv4 address of a host, got '::1'"),
        ([ALPHA | {"PublicIP": "0.0.0.0"}], "Nodes[0].PublicIP: expected the IPv4 address of a host"),
        ([ALPHA | {"PublicIP": "127.0.0.1"}], "Nodes[0].PublicIP: expected the IPv4 address of a host"),
        ([ALPHA | {"PublicIP": "239.1.1.1"}], "Nodes[0].PublicIP: expected the IPv4 address of a host"),
        ([ALPHA | {"PublicIP": "10.5.9.9"}], "Nodes[0].PublicIP: 10.5.9.9 is inside the Network 10.5.0.0/16"),
        ([ALPHA | {"Name": 5}], "Nodes[0].Name: expected a string, got 5"),
        ([ALPHA, BETA | {"Subnet": ""}], "Nodes[1].Subnet: invalid CIDR ''"),
        ([ALPHA, BETA | {"Subnet": "10.5.2.1/24"}], "Nodes[1].Subnet: invalid CIDR '10.5.2.1/24': host bits are set"),
        ([ALPHA, BETA | {"Subnet": "10.5.2.0/31"}], "Nodes[1].Subnet: expected an IPv4 subnet of /30 or larger"),
        ([ALPHA, BETA | {"Subnet": "fc00::/24"}], "Nodes[1].Subnet: expected an IPv4 subnet of /30 or larger"),
        (
            [ALPHA, BETA | {"Subnet": "10.6.2.0/24"}],
            "Nodes[1].Subnet: 10.6.2.0/24 is not inside the Network 10.5.0.0/16",
        ),
        ([ALPHA, BETA | {"Subnet": "10.0.0.0/8"}], "Nodes[1].Subnet: 10.0.0.0/8 is not inside the Network 10.5.0.0/16"),
        ([ALPHA, BETA | {"Name": "alpha"}], 'Nodes[1].Name: "alpha" is that of Nodes[0] ("alpha") too'),
        ([ALPHA, BETA | {"PublicIP": "192.0.2.1"}], 'Nodes[1].PublicIP: 192.0.2.1 is that of Nodes[0] ("alpha") too'),
        (
            [ALPHA, BETA | {"Subnet": "10.5.1.0/24"}],
            'Nodes[1].Subnet: 10.5.1.0/24 is the subnet of Nodes[0] ("alpha") too, in the node "beta"',
        ),
        (
            [ALPHA, GAMMA, BETA | {"Subnet": "10.5.0.0/22"}],
            'Nodes[2].Subnet: 10.5.0.0/22 overlaps 10.5.1.0/24 of Nodes[0] ("alpha"), in the node "beta"',
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_place(nodes, message):
    assert refused(*nodes).startswith(message)


def test_nodes_must_be_a_list():
    for value, got in (("null", "null"), ("{}", "{}"), ('"x"', '"x"')):
        with pytest.raises(ConfigError, match=r"Nodes: expected a list of .* objects, got " + got):
            parse_nodes(f'{{"Network": "10.5.0.0/16", "Nodes": {value}}}'.encode())
    with pytest.raises(ConfigError, match="got no such key"):
        parse_nodes(b'{"Network": "10.5.0.0/16"}')


def test_the_configuration_is_checked_too():
    assert refused(ALPHA, Backend={"Type": "vxlan"}).startswith("unknown backend type: vxlan")


@given(
    st.lists(
        st.builds(
            lambda address, bits: str(ip_network((address & ~((1 << (32 - bits)) - 1), bits))),
            st.integers(0x0A050000, 0x0A0500FF),
            st.integers(24, 30),
        ),
        max_size=8,
    )
)
def test_overlaps_are_found_as_comparing_all_pairs_finds_them(subnets):
    nodes = [{"PublicIP": f"192.0.2.{i}", "Subnet": subnet} for i, subnet in enumerate(subnets, 1)]
    networks = [ip_network(subnet) for subnet in subnets]
    clash = {(i, j) for i, a in enumerate(networks) for j, b in enumerate(networks) if i < j and a.overlaps(b)}
    if not clash:
        assert len(parse_nodes(text(*nodes).encode())[1]) == len(nodes)
        return
    message = refused(*nodes)
    assert any(message.startswith(f"Nodes[{j}].Subnet: ") and f"of Nodes[{i}]" in message for i, j in clash)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda j: st.dictionaries(st.text(), j) | st.lists(j)))
def test_any_json_is_a_registry_or_a_config_error(value):
    for document in ({"Nodes": value}, {"Nodes": [value]}, {"Nodes": [ALPHA | {"Subnet": value}]}):
        with contextlib.suppress(ConfigError):
            parse_nodes(json.dumps({"Network": "10.5.0.0/16"} | document).encode())


def test_a_large_network_is_checked_in_seconds():
    nodes = [node(f"n{i}", str(IPv4Address(0xC6000000 + i)), f"10.{i >> 8}.{i & 255}.0/24") for i in range(65536)]
    data = text(*nodes, Network="10.0.0.0/8").encode()
    start = time.process_time()
    assert len(parse_nodes(data)[1]) == 65536
    assert time.process_time() - start < 10


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "nodes.json"
    file.write_text(text(ALPHA, BETA))
    return file


def test_load_names_the_file(path):
    path.write_text("{")
    with pytest.raises(ConfigError, match=f"^{path}: not valid JSON: line 1 column 2"):
        StaticSubnets(path, None).load()


@pytest.mark.parametrize(("name", "reason"), [("none.json", "No such file or directory"), (".", "Is a directory")])
def test_an_unreadable_file_is_a_host_error(tmp_path, name, reason):
    with pytest.raises(HostError) as caught:
        StaticSubnets(tmp_path / name, None).load()
    assert str(caught.value) == f"cannot read {tmp_path / name}: {reason}"


def test_a_fifo_is_refused_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(HostError, match="expected a regular file"):
        StaticSubnets(tmp_path / "fifo", None).load()


def test_the_state_before_and_after_loading(path):
    subnets = StaticSubnets(path, None)
    assert (subnets.state.kind, subnets.state.source) == ("static", str(path))
    assert (subnets.state.last_sync, subnets.state.degraded, subnets.state.revision) == (0.0, None, 0)
    file = subnets.load()
    assert abs(subnets.state.last_sync - time.time()) < DEADLINE_S
    assert subnets.snapshot(file) == static.Snapshot(file.leases, 1)


def test_this_host_is_found_by_address_or_by_name(path):
    by_address, by_name = StaticSubnets(path, None), StaticSubnets(path, "beta")
    assert by_address.own(by_address.load(), IPv4Address("192.0.2.1")).node == "alpha"
    assert by_name.own(by_name.load(), IPv4Address("192.0.2.2")).node == "beta"


@pytest.mark.parametrize(
    ("name", "address", "message"),
    [
        (None, "192.0.2.9", r"this host \(192.0.2.9\) is not among the nodes of .*nodes.json: add a node"),
        ("delta", "192.0.2.1", "this host is not among the nodes of .*nodes.json: none has the Name 'delta'"),
        ("beta", "192.0.2.1", "node 'beta' of .* has the PublicIP 192.0.2.2, this host has 192.0.2.1: correct"),
    ],
)
def test_a_host_that_is_not_there_is_told_what_to_do(path, name, address, message):
    subnets = StaticSubnets(path, name)
    with pytest.raises(ConfigError, match=message):
        subnets.own(subnets.load(), IPv4Address(address))


class Watched:
    """A registry being watched, and the snapshots it has yielded."""

    def __init__(self, path, node_name=None):
        self.path = path
        self.subnets = StaticSubnets(path, node_name)
        self.first = self.subnets.load()
        self.own = self.subnets.own(self.first, IPv4Address("192.0.2.1"))
        self.snapshots = asyncio.Queue()

    async def _run(self):
        async with contextlib.aclosing(self.subnets.watch(self.first, self.own)) as changes:
            async for snapshot in changes:
                self.snapshots.put_nowait(snapshot)

    async def __aenter__(self):
        self.task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    def replace(self, content):
        beside = self.path.with_suffix(".new")
        beside.write_text(content)
        beside.rename(self.path)

    async def names(self):
        """The nodes of the next snapshot."""
        async with asyncio.timeout(DEADLINE_S):
            return [lease.node for lease in (await self.snapshots.get()).leases]

    async def until(self, condition):
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self.subnets.state):  # noqa: ASYNC110 the state is polled by design
                await asyncio.sleep(0.01)

    async def degraded(self):
        await self.until(lambda state: state.degraded is not None)
        return self.subnets.state.degraded


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(static, "POLL_S", 0.02)


async def test_an_edit_is_seen_within_a_second(path):
    async with Watched(path) as watched:
        await asyncio.sleep(0)
        path.write_text(text(ALPHA, BETA, GAMMA))
        async with asyncio.timeout(1):
            snapshot = await watched.snapshots.get()
        assert [lease.node for lease in snapshot.leases] == ["alpha", "beta", "gamma"]
        assert snapshot.revision == watched.subnets.state.revision == 2


async def test_an_edit_between_loading_and_watching_is_seen(path, quick):
    watched = Watched(path)
    path.write_text(text(ALPHA, GAMMA))
    async with watched:
        assert await watched.names() == ["alpha", "gamma"]


async def test_every_way_of_changing_a_file_is_seen(path, quick):
    async with Watched(path) as watched:
        watched.replace(text(ALPHA))
        assert await watched.names() == ["alpha"]
        path.write_text(text(ALPHA, BETA))
        assert await watched.names() == ["alpha", "beta"]
        before = path.stat()
        path.write_text(text(ALPHA, BETA | {"PublicIP": "192.0.2.7"}))  # as long as before, and as old
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert await watched.names() == ["alpha", "beta"]


async def test_a_symlink_is_followed_as_kubernetes_turns_it(tmp_path, quick):
    for version, nodes in (("v1", [ALPHA]), ("v2", [ALPHA, BETA])):
        (tmp_path / version).mkdir()
        (tmp_path / version / "nodes.json").write_text(text(*nodes))
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / "nodes.json").symlink_to("data/nodes.json")
    async with Watched(tmp_path / "nodes.json") as watched:
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").rename(tmp_path / "data")
        assert await watched.names() == ["alpha", "beta"]


async def test_an_edit_that_changes_no_lease_yields_nothing(path, quick):
    async with Watched(path) as watched:
        path.write_text(text(BETA, ALPHA))
        sync = watched.subnets.state.last_sync
        await watched.until(lambda state: state.last_sync > sync + 0.1)
        assert watched.snapshots.empty()
        assert watched.subnets.state.revision == 1


async def test_a_broken_edit_keeps_the_last_good_state_and_is_logged_once(path, quick, caplog):
    caplog.set_level(logging.INFO, LOG)
    async with Watched(path) as watched:
        path.write_text(text(ALPHA, BETA | {"Subnet": "10.5.1.0/24"}))
        assert f'{path}: Nodes[1].Subnet: 10.5.1.0/24 is the subnet of Nodes[0] ("alpha")' in await watched.degraded()
        sync = watched.subnets.state.last_sync
        path.touch()  # the same mistake in a new guise is no news
        await asyncio.sleep(5 * static.POLL_S)
        assert watched.subnets.state.last_sync == sync
        assert len(caplog.records) == 1
        assert watched.snapshots.empty()
        path.write_text(text(ALPHA, BETA, GAMMA))
        assert await watched.names() == ["alpha", "beta", "gamma"]
        assert watched.subnets.state.degraded is None
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_taking_a_broken_edit_back_clears_the_state(path, quick):
    async with Watched(path) as watched:
        path.write_text("")
        assert "not valid JSON" in await watched.degraded()
        path.write_text(text(ALPHA, BETA))
        await watched.until(lambda state: state.degraded is None)
        assert watched.snapshots.empty()


async def test_a_half_written_file_is_not_an_error(path, quick, caplog, monkeypatch):
    watched = Watched(path)
    look, good = watched.subnets._look, text(ALPHA, GAMMA)
    errors = []

    def finish_writing_after(seen):
        stamp, found = look(seen)
        if isinstance(found, UdpBackendError):
            errors.append(found)
            path.write_text(good)
        return stamp, found

    monkeypatch.setattr(watched.subnets, "_look", finish_writing_after)
    async with watched:
        path.write_text(good[: len(good) // 2])
        assert await watched.names() == ["alpha", "gamma"]
    assert len(errors) == 1
    assert caplog.records == []
    assert watched.subnets.state.degraded is None


async def test_a_file_removed_and_returned(path, quick):
    async with Watched(path) as watched:
        path.unlink()
        assert await watched.degraded() == f"cannot read {path}: No such file or directory"
        path.write_text(text(ALPHA))
        assert await watched.names() == ["alpha"]
        assert watched.subnets.state.degraded is None


async def test_a_disk_that_recovers_is_asked_again(path, quick, monkeypatch):
    watched = Watched(path)
    read, failures = watched.subnets._read, [HostError("cannot read it: Input/output error")] * 4

    def failing():
        if failures:
            raise failures.pop()
        return read()

    monkeypatch.setattr(watched.subnets, "_read", failing)
    async with watched:
        assert "Input/output error" in await watched.degraded()
        await watched.until(lambda state: state.degraded is None)


@pytest.mark.parametrize(
    ("name", "edit", "what"),
    [
        (None, text(ALPHA | {"Subnet": "10.5.9.0/24"}, BETA), "the Subnet of this host (192.0.2.1) has changed from"),
        (None, text(BETA), "this host (192.0.2.1) is no longer among the nodes"),
        ("alpha", text(BETA), "this host (alpha) is no longer among the nodes"),
        (
            "alpha",
            text(ALPHA | {"PublicIP": "192.0.2.8"}),
            "the PublicIP of this host (alpha) has changed from 192.0.2.1 to 192.0.2.8",
        ),
        (None, text(ALPHA, Network="10.4.0.0/15"), "Network has changed from 10.5.0.0/16 to 10.4.0.0/15"),
        (None, text(ALPHA, SubnetLen=25), "SubnetLen has changed from 24 to 25"),
        (None, text(ALPHA, Backend={"Type": "udp", "Port": 9000}), "Backend has changed from"),
    ],
)
async def test_what_needs_a_restart_is_not_followed(path, quick, name, edit, what):
    async with Watched(path, name) as watched:
        path.write_text(edit)
        reason = await watched.degraded()
        assert reason.startswith(f"restart needed: {path}: ")
        assert what in reason
        assert watched.snapshots.empty()
        path.write_text(text(ALPHA, GAMMA))
        assert await watched.names() == ["alpha", "gamma"]
        assert watched.subnets.state.degraded is None
