"""The static registry: finding this host in the file, and following edits of a real file."""

import asyncio
import contextlib
import json
import logging
import os
import time
from ipaddress import IPv4Address

import pytest

from udpbackend.errors import ConfigError, HostError, UdpBackendError
from udpbackend.subnets import static
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
        async with contextlib.aclosing(self.subnets.edits(self.own)) as changes:
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
        (None, text(ALPHA, EnableNFTables=True), "EnableNFTables has changed from False to True"),
        (
            None,
            text(ALPHA, EnableIPv6=True, IPv6Network="fd00:5::/48"),
            "IPv6Network has changed from nothing to fd00:5::/48",
        ),
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


async def test_a_peers_ipv6_subnet_is_followed_and_our_own_needs_a_restart(path, quick):
    ipv6 = {"EnableIPv6": True, "IPv6Network": "fd00:5::/48"}
    mine = ALPHA | {"IPv6Subnet": "fd00:5:0:1::/64"}
    path.write_text(text(mine, BETA, **ipv6))
    async with Watched(path) as watched:
        path.write_text(text(mine, BETA | {"IPv6Subnet": "fd00:5:0:2::/64"}, **ipv6))
        async with asyncio.timeout(DEADLINE_S):
            snapshot = await watched.snapshots.get()
        assert [str(lease.ipv6_subnet) for lease in snapshot.leases] == ["fd00:5:0:1::/64", "fd00:5:0:2::/64"]
        for edit, words in (
            (
                text(ALPHA, BETA, **ipv6),
                "the IPv6Subnet of this host (192.0.2.1) has changed from fd00:5:0:1::/64 to nothing",
            ),
            (text(mine, BETA, **ipv6, IPv6SubnetLen=80), "IPv6SubnetLen has changed from 64 to 80"),
            (text(ALPHA, BETA), "IPv6Network has changed from fd00:5::/48 to nothing"),
        ):
            path.write_text(edit)
            await watched.until(lambda state, words=words: words in (state.degraded or ""))
        assert watched.snapshots.empty()
