"""Following the nodes of a real API server: changes arrive, heartbeats do not, and what is wrong is told once."""

import logging
import time

import pytest
from kube_api import FLANNEL, KubeApi, joined, node
from kube_registry import QUICK, settings, watched

A = node("a", "10.244.1.0/24")
B = joined("b", "10.244.2.0/24", "192.0.2.2")
C = joined("c", "10.244.3.0/24", "192.0.2.3")
LOG = "udpbackend.subnets.kube"


@pytest.fixture
async def api():
    async with KubeApi(A, B, node("stranger", "10.244.9.0/24")) as served:
        yield served


async def test_the_first_snapshot_holds_all_nodes_of_flannel(api, tmp_path):
    async with watched(settings(api, tmp_path)) as it:
        own, peer = (await it.next()).leases
        assert (own.node, str(own.subnet), str(own.public_address)) == ("a", "10.244.1.0/24", "192.0.2.1")
        assert (peer.node, str(peer.subnet), str(peer.public_address)) == ("b", "10.244.2.0/24", "192.0.2.2")
        assert (peer.backend_type, peer.backend_data) == ("udp", b"null")
        await api.watched()
        state = it.registry.state
        assert (state.kind, state.source, state.degraded, state.revision) == ("kube", api.url, None, 1)
        assert abs(time.time() - state.last_sync) < 5


@pytest.mark.parametrize("twice", [False, True], ids=["told once", "told twice"])
async def test_added_changed_and_deleted_nodes_are_followed(api, tmp_path, twice):
    api.twice = twice
    async with watched(settings(api, tmp_path)) as it:
        assert await it.names() == {"a", "b"}
        await api.watched()
        api.put(C)
        assert await it.names() == {"a", "b", "c"}
        api.change("c", lambda it: it["metadata"]["annotations"].update({FLANNEL + "public-ip": "192.0.2.33"}))
        assert str((await it.next()).leases[2].public_address) == "192.0.2.33"
        api.change("c", lambda it: it["spec"].update(podCIDR="10.244.4.0/24", podCIDRs=["10.244.4.0/24"]))
        assert str((await it.next()).leases[2].subnet) == "10.244.4.0/24"
        api.change("c", lambda it: it["metadata"].update(annotations={}))
        assert await it.names() == {"a", "b"}
        api.delete("b")
        assert await it.names() == {"a"}
        assert it.registry.state.revision == 6
        assert len(api.of("LIST")) == 1


async def test_heartbeats_yield_nothing(api, tmp_path):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        for _ in range(200):
            api.heartbeat("b")
            api.heartbeat("a")
        api.put(C)
        assert await it.names() == {"a", "b", "c"}
        assert it.quiet
        assert it.registry.state.revision == 2
        assert len(api.of("PATCH")) == 1


async def test_an_event_may_come_in_pieces(api, tmp_path):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.change("b", lambda it: it["metadata"]["annotations"].update({"other": "\u2028\x85" + "x" * 300_000}))
        api.put(C)
        assert await it.names() == {"a", "b", "c"}


async def test_a_bookmark_is_a_sign_of_life(api, tmp_path):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        before = it.registry.state.last_sync
        api.bookmark()
        await it.until(lambda state: state.last_sync > before)
        assert it.quiet


async def test_a_list_comes_in_pages(tmp_path):
    many = [joined(f"n{i}", f"10.244.{i % 256}.{i // 256 * 16}/28", f"198.51.{i // 256}.{i % 256}") for i in range(600)]
    own = node("a", "10.244.0.128/28")
    async with KubeApi(*many[:599], own) as api, watched(settings(api, tmp_path)) as it:
        assert len((await it.next()).leases) == 600
        assert [asked.query["limit"] for asked in api.of("LIST")] == ["100"] * 6
        assert len({asked.query.get("continue") for asked in api.of("LIST")}) == 6


async def test_our_own_node_deleted_leaves_the_leases_in_use(api, tmp_path, caplog):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.delete("a")
        await it.until(lambda state: state.degraded and "the other nodes no longer reach it" in state.degraded)
        api.put(C)
        assert await it.names() == {"a", "b", "c"}
        assert "the node a of this host was deleted" in caplog.text
        api.put(node("a", "10.244.1.0/24"))
        await it.until(lambda state: state.degraded is None)


async def test_a_watch_that_ends_at_its_time_goes_on_from_there(api, tmp_path):
    """Thousands of nodes that list anew every few minutes would be a burden."""
    async with watched(settings(api, tmp_path), QUICK._replace(watch_s=1.0)) as it:
        await it.next()
        await api.watched()
        api.put(C)
        await it.next()
        await api.asked_for("WATCH", 2)
        assert len(api.of("LIST")) == 1
        assert api.of("WATCH")[1].query["resourceVersion"] == api.nodes["c"]["metadata"]["resourceVersion"]
        assert it.registry.state.degraded is None


async def test_broken_nodes_are_told_once_each(api, tmp_path, caplog):
    caplog.set_level(logging.INFO, LOG)
    api.put(joined("bad", "10.244.5.0/24", "here"))
    async with watched(settings(api, tmp_path)) as it:
        assert await it.names() == {"a", "b"}
        await api.watched()
        for _ in range(3):
            api.heartbeat("bad")
        api.drop_watches()
        await api.asked_for("LIST", 2)
        await api.watched(1)
        told = [record.message for record in caplog.records if "bad" in record.message]
        assert told == [f"node bad is left out: annotation {FLANNEL}public-ip: expected an IPv4 address, got 'here'"]
        api.change("bad", lambda it: it["metadata"]["annotations"].update({FLANNEL + "public-ip": "10.244.5.5"}))
        api.change("bad", lambda it: it["metadata"]["annotations"].update({FLANNEL + "public-ip": "192.0.2.5"}))
        assert await it.names() == {"a", "b", "bad"}
        assert len([record for record in caplog.records if "bad" in record.message]) == 2


async def test_a_machine_that_returns_under_another_name_is_reached(api, tmp_path, caplog):
    """The object of its old name lingers until somebody deletes it."""
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.put(joined("again", "10.244.6.0/24", "192.0.2.2", created="2026-02-01T00:00:00Z"))
        assert [str(lease.public_address) for lease in (await it.next()).leases] == ["192.0.2.1", *["192.0.2.2"] * 2]
        api.put(C)
        assert await it.names() == {"a", "b", "c", "again"}
        api.delete("b")
        assert await it.names() == {"a", "c", "again"}
        told = [record.message for record in caplog.records if "again" in record.message]
        assert told == ["node again is kept, but its public-ip 192.0.2.2 is that of the node 'b' too"]


async def test_of_two_nodes_with_one_podcidr_the_older_counts(api, tmp_path, caplog):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.put(joined("twin", "10.244.2.0/24", "192.0.2.6", created="2026-02-01T00:00:00Z"))
        await it.until(lambda _: "twin" in caplog.text)
        api.put(joined("ours", "10.244.6.0/24", "192.0.2.1"))
        await it.until(lambda _: "ours" in caplog.text)
        api.put(C)
        assert await it.names() == {"a", "b", "c"}
        api.delete("b")
        assert await it.names() == {"a", "c", "twin"}
        assert [record.message for record in caplog.records if "is left out" in record.message] == [
            "node twin is left out: its podCIDR 10.244.2.0/24 overlaps that of the node 'b'",
            "node ours is left out: its public-ip 192.0.2.1 is that of the node 'a' too",
        ]
