"""Everything an API server can do to a watch: it ends, is cut, is silent, forgets, forbids; and nobody is dropped."""

import logging

import pytest
from kube_api import KubeApi, joined, node
from kube_registry import QUICK, settings, unwatched, watched

from udpbackend.subnets.kube import watch
from udpbackend.subnets.kube.contact import Contact

A = node("a", "10.244.1.0/24")
B = joined("b", "10.244.2.0/24", "192.0.2.2")
C = joined("c", "10.244.3.0/24", "192.0.2.3")
LOG = "udpbackend.subnets.kube"
pause = Contact.pause


@pytest.fixture
async def api():
    async with KubeApi(A, B) as served:
        yield served


async def still_follows(api, it):
    """A change after all the trouble arrives, and nothing else does."""
    api.put(C)
    assert await it.names() == {"a", "b", "c"}
    assert it.quiet


@pytest.mark.parametrize("end", ["drop_watches", "end_watches"])
async def test_what_is_missed_between_two_watches_is_found_by_a_list(api, tmp_path, end):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api._watchers, old = set(), api._watchers  # what follows is told to nobody
        api.forgotten = 10_000
        api.delete("b")
        api.put(C)
        api._watchers = old
        getattr(api, end)()
        assert await it.names() == {"a", "c"}
        assert it.quiet


async def test_a_watch_that_ends_early_is_gone_on_from(api, tmp_path):
    """As behind a load balancer, and when API servers are restarted one by one."""
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        for count in range(1, 6):
            await api.asked_for("WATCH", count)
            await api.watched()
            api.heartbeat("b")
            api.end_watches()
        await api.asked_for("WATCH", 6)
        assert it.registry.state.degraded is None
        await still_follows(api, it)
        assert len(api.of("LIST")) == 1
        assert int(api.of("WATCH")[5].query["resourceVersion"]) == api.version - 1


async def test_an_idle_watch_that_ends_early_is_gone_on_from(api, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "SHORT_S", 0.0)
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.end_watches()
        await api.asked_for("WATCH", 2)
        await still_follows(api, it)
        assert len(api.of("LIST")) == 1


async def test_a_watch_that_ends_at_once_without_a_word_lists_again(api, tmp_path, monkeypatch):
    """Or a proxy that lets no watch through would hide every change from us."""
    monkeypatch.setattr(watch, "SHORT_S", 1000.0)
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.end_watches()
        await api.asked_for("LIST", 2)
        await api.asked_for("WATCH", 2)
        assert it.registry.state.degraded is None
        await still_follows(api, it)


async def test_what_a_busy_server_asks_for_is_waited(api, tmp_path, monkeypatch):
    """And a watch that it refuses costs it no list."""
    least = []
    monkeypatch.setattr(Contact, "pause", lambda self, at_least_s=0.0: least.append(at_least_s) or pause(self))
    api.fail("LIST", 429, "too many requests", retry_after="5", times=2)
    api.fail("LIST", 503, "shutting down", retry_after="86400")
    api.fail("WATCH", 429, "too many requests", retry_after="1", times=2)
    async with watched(settings(api, tmp_path)) as it:
        assert await it.names() == {"a", "b"}
        await api.watched()
        assert least == [5, 5, 60, 1, 1]
        assert len(api.of("LIST")) == 4
        await it.until(lambda state: state.degraded is None)
        await still_follows(api, it)


async def test_410_in_a_watch_lists_again(api, tmp_path):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.error_event(410, "too old resource version: 7 (100)")
        await api.asked_for("LIST", 2)
        await api.watched()
        assert it.registry.state.degraded is None
        await still_follows(api, it)


async def test_410_for_a_watch_lists_again(api, tmp_path):
    api.fail("WATCH", 410, "too old resource version", times=2)
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.asked_for("LIST", 3)
        await api.watched()
        await still_follows(api, it)


async def test_410_in_the_middle_of_a_list_begins_it_anew(tmp_path):
    many = [joined(f"n{i}", f"10.244.{i % 256}.{i // 256 * 16}/28", f"198.51.{i // 256}.{i % 256}") for i in range(300)]
    async with KubeApi(*many, node("a", "10.244.255.128/28")) as api:
        api.fail("LIST", 410, "The provided continue parameter is too old", after=1)
        async with watched(settings(api, tmp_path)) as it:
            assert len((await it.next()).leases) == 301
            assert [asked.query.get("continue") is None for asked in api.of("LIST")] == [
                True,
                False,
                True,
                False,
                False,
                False,
            ]


async def test_a_list_that_breaks_off_is_no_list(tmp_path):
    many = [joined(f"n{i}", f"10.244.{i % 256}.{i // 256 * 16}/28", f"198.51.{i // 256}.{i % 256}") for i in range(150)]
    async with KubeApi(*many, node("a", "10.244.255.128/28")) as api, watched(settings(api, tmp_path)) as it:
        assert len((await it.next()).leases) == 151
        await api.watched()
        api.torn = 3
        api.drop_watches()
        await it.until(lambda state: state.degraded and "no contact with the API server" in state.degraded)
        await it.until(lambda state: state.degraded is None)
        assert api.torn == 0
        assert it.quiet


async def test_an_api_server_away_for_long_drops_nobody(api, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, LOG)
    pauses = []
    monkeypatch.setattr(Contact, "pause", lambda self, _: pauses.append(1) or pause(self))
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        await api.stop()
        refused = f"no contact with the API server {api.url}: Connection refused"
        await it.until(lambda state: state.degraded == refused)
        await it.until(lambda state: state.degraded == refused and len(pauses) > 50)
        assert it.quiet
        assert len([record for record in caplog.records if "Connection refused" in record.message]) == 1
        await api.start()
        await api.watched()
        await it.until(lambda state: state.degraded is None)
        assert it.quiet
        assert f"the API server {api.url} answers again" in caplog.text


async def test_an_outage_ends_in_the_difference(api, tmp_path):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        async with unwatched(api, it):
            api.delete("b")
            api.put(C)
            api.put(joined("d", "10.244.4.0/24", "192.0.2.4"))
        assert await it.names() == {"a", "c", "d"}
        assert it.quiet


async def test_a_peer_made_anew_whose_podcidr_another_has_by_now(api, tmp_path):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        async with unwatched(api, it):
            api.delete("b")
            api.put(joined("new", "10.244.2.0/24", "192.0.2.9", created="2026-03-01T00:00:00Z"))
            api.put(joined("b", "10.244.7.0/24", "192.0.2.2", created="2026-03-02T00:00:00Z"))
        leases = (await it.next()).leases
        assert [(it.node, str(it.subnet), str(it.public_address)) for it in leases[1:]] == [
            ("new", "10.244.2.0/24", "192.0.2.9"),
            ("b", "10.244.7.0/24", "192.0.2.2"),
        ]
        assert it.quiet


async def test_an_outage_before_the_first_list_is_waited_out(api, tmp_path):
    api.fail("LIST", 503, "etcdserver: leader changed", times=3)
    api.fail("LIST", times=2)
    async with watched(settings(api, tmp_path)) as it:
        await it.until(lambda state: state.degraded)
        assert "refuses to list nodes: 503 etcdserver: leader changed" in it.registry.state.degraded
        assert await it.names() == {"a", "b"}


async def test_a_list_without_our_own_node_is_not_believed(api, tmp_path):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        before, api.nodes = api.nodes, {}
        api.drop_watches()
        await it.until(lambda state: state.degraded and "the node a of this host is not among" in state.degraded)
        await api.asked_for("LIST", 4)
        assert it.quiet
        api.nodes = before
        await it.until(lambda state: state.degraded is None)
        assert it.quiet


@pytest.mark.parametrize("line", [b"{not json}\n", b'{"type":"ADDED","object":{"metadata":7}}\n', b"[]\n"])
async def test_garbage_in_a_watch_ends_it(api, tmp_path, line):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.raw(line)
        await api.asked_for("LIST", 2)
        await api.watched()
        await still_follows(api, it)


async def test_half_an_event_is_no_event(api, tmp_path, caplog):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.raw(b'{"type":"DELETED","object":{"metadata":{"name":"b"')
        api.end_watches()
        await api.asked_for("LIST", 2)
        await api.watched()
        assert it.quiet
        assert "has ended a watch in the middle of an event" in caplog.text


async def test_a_silent_api_server_is_an_outage(api, tmp_path):
    timing = QUICK._replace(request_s=0.5)
    async with watched(settings(api, tmp_path), timing) as it:
        await it.next()
        await api.watched()
        api.silent = True
        api.drop_watches()
        await it.until(lambda state: state.degraded and "is silent: no answer to list nodes" in state.degraded)
        api.silent = False
        await it.until(lambda state: state.degraded is None)
        assert it.quiet


async def test_a_watch_that_outlives_its_time_is_given_up(api, tmp_path):
    """As when a proxy keeps the connection although the server behind it is gone."""
    api.endless = True
    timing = QUICK._replace(request_s=1.0, watch_s=1.0)
    async with watched(settings(api, tmp_path), timing) as it:
        await it.next()
        await api.asked_for("WATCH", 2)
        assert len(api.of("LIST")) == 2
        await still_follows(api, it)


async def test_a_permission_lost_while_we_run_is_an_outage(api, tmp_path):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.fail("LIST", 403, 'nodes is forbidden: User "x" cannot list resource "nodes"', times=3)
        api.drop_watches()
        await it.until(lambda state: state.degraded and "forbids to list nodes: nodes is forbidden" in state.degraded)
        await it.until(lambda state: state.degraded is None)
        assert it.quiet
