"""The client against a real etcd: keys, leases, watches, and what its errors say."""

import logging
import time
from contextlib import aclosing, asynccontextmanager

import pytest
from between import Lagging
from etcd_server import Authority, Etcd
from free_ports import free_ports

from udpbackend.errors import HostError, RegistryError, UsageError
from udpbackend.subnets.etcd import client as client_module
from udpbackend.subnets.etcd.access import Access
from udpbackend.subnets.etcd.client import Client
from udpbackend.subnets.etcd.session import AwayError
from udpbackend.subnets.etcd.values import CompactedError


@asynccontextmanager
async def connected(endpoints, access=None, **options):
    client = Client(endpoints, access or Access(), **options)
    try:
        yield client
    finally:
        await client.close()


async def refusal(endpoints, access=None):
    async with connected(endpoints, access) as client:
        with pytest.raises(RegistryError) as caught:
            await client.get(b"/x")
    return str(caught.value)


async def test_keys_are_written_only_as_they_were_last_seen(client, prefix):
    key = f"{prefix}/a".encode()
    assert await client.get(key) is None
    first = await client.put_if(key, b"1", 0, 0)
    assert first.succeeded
    found = await client.get(key)
    assert (found.value, found.mod_revision, found.create_revision) == (b"1", first.revision, first.revision)
    assert (found.version, found.lease) == (1, 0)
    late = await client.put_if(key, b"2", 0, 0)
    assert not late.succeeded
    assert late.found == found
    second = await client.put_if(key, b"2", 0, first.revision)
    assert second.succeeded
    assert not await client.delete_if(key, first.revision)
    assert await client.delete_if(key, second.revision)
    assert await client.delete_if(key, second.revision)
    gone = await client.put_if(key, b"3", 0, second.revision)
    assert (gone.succeeded, gone.found) == (False, None)


async def test_a_write_whose_answer_was_lost_is_found_by_the_next_attempt(client, prefix):
    key = f"{prefix}/a".encode()
    lease = await client.lease_grant(60)
    first = await client.put_if(key, b"1", lease, 0)
    assert await client.put_if(key, b"1", lease, 0) == first
    await client.lease_revoke(lease)


async def test_a_lease_granted_twice_is_one(client, etcd, monkeypatch):
    before = etcd.leases()
    monkeypatch.setattr(client_module.random, "getrandbits", lambda _bits: 4711)
    assert await client.lease_grant(60) == await client.lease_grant(60) == 4712
    assert sorted(etcd.leases()) == sorted([*before, 4712])
    await client.lease_revoke(4712)
    assert etcd.leases() == before


async def test_leases_live_anew_and_end(client, prefix):
    lease = await client.lease_grant(60)
    key = f"{prefix}/a".encode()
    await client.put_if(key, b"1", lease, 0)
    assert (await client.get(key)).lease == lease
    assert await client.lease_keep_alive(lease) == 60
    assert 58 <= await client.lease_time_to_live(lease) <= 60
    await client.lease_revoke(lease)
    await client.lease_revoke(lease)
    assert await client.get(key) is None
    assert await client.lease_keep_alive(lease) == 0
    assert await client.lease_time_to_live(lease) == 0


async def test_many_keys_come_in_pages_of_one_revision(client, prefix, etcd):
    etcd.ctl("txn", text="\n" + "".join(f"put {prefix}/k/{n:05d} {n}\n" for n in range(120)) + "\n\n")
    client_module.PAGE_KEYS, before = 7, client_module.PAGE_KEYS
    try:
        found = await client.get_prefix(f"{prefix}/k/".encode())
    finally:
        client_module.PAGE_KEYS = before
    assert [kv.value for kv in found.items] == [str(n).encode() for n in range(120)]
    assert found.revision >= found.items[0].mod_revision
    assert (await client.get_prefix(f"{prefix}/none/".encode())).items == ()


async def test_keys_are_read_as_they_were_until_that_is_forgotten(client, prefix, etcd):
    first = await client.put_if(f"{prefix}/k/a".encode(), b"1", 0, 0)
    second = await client.put_if(f"{prefix}/k/a".encode(), b"2", 0, first.revision)
    past = await client.get_prefix(f"{prefix}/k/".encode(), first.revision)
    assert (past.revision, [kv.value for kv in past.items]) == (first.revision, [b"1"])
    etcd.ctl("compaction", str(second.revision))
    with pytest.raises(CompactedError, match="required revision has been compacted"):
        await client.get_prefix(f"{prefix}/k/".encode(), first.revision)


async def test_a_watch_tells_changes_from_its_revision_on(client, prefix):
    lease = await client.lease_grant(60)
    first = await client.put_if(f"{prefix}/s/a".encode(), b"1", lease, 0)
    await client.put_if(f"{prefix}/t".encode(), b"not below the prefix", 0, 0)
    async with aclosing(client.watch(f"{prefix}/s/".encode(), first.revision)) as batches:
        begun = await anext(batches)
        assert begun.events == ()
        assert begun.revision >= first.revision
        assert begun.cluster_id == (await client.get_prefix(b"/none/")).cluster_id
        (event,) = (await anext(batches)).events
        assert (event.kind, event.kv.value, event.kv.lease) == ("PUT", b"1", lease)
        await client.lease_revoke(lease)
        (event,) = (await anext(batches)).events
        assert (event.kind, event.kv.key) == ("DELETE", f"{prefix}/s/a".encode())
        assert event.kv.mod_revision > first.revision


async def test_a_watch_below_a_compaction_says_so(client, prefix, etcd):
    revision = 0
    for n in range(4):
        outcome = await client.put_if(f"{prefix}/{n}".encode(), b"1", 0, 0)
        revision = outcome.revision
    etcd.ctl("compaction", str(revision))
    async with aclosing(client.watch(prefix.encode(), revision - 2)) as batches:
        await anext(batches)
        with pytest.raises(CompactedError, match=f"revision {revision} is the oldest it still knows") as caught:
            await anext(batches)
    assert caught.value.revision == revision


async def test_a_quiet_watch_is_asked_whether_it_stands(client, prefix, monkeypatch):
    monkeypatch.setattr("udpbackend.subnets.etcd.stream.PROGRESS_S", 0.05)
    async with aclosing(client.watch(prefix.encode(), 0)) as batches:
        for _ in range(4):
            assert (await anext(batches)).events == ()


async def test_a_proxy_for_the_web_is_not_used(etcd, monkeypatch):
    (dead,) = free_ports(1, "127.0.0.1")
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{dead}")
    monkeypatch.delenv("no_proxy", raising=False)
    async with connected(etcd.endpoints) as client:
        assert await client.get(b"/none") is None


async def test_an_endpoint_where_nobody_listens_is_named(able):
    (dead,) = free_ports(1, "127.0.0.1")
    text = await refusal([f"http://127.0.0.1:{dead}", f"http://localhost:{dead}"])
    assert "etcd http://127.0.0.1" in text
    assert "etcd http://localhost" in text
    assert text.count("Connection refused") == 2


async def test_the_first_endpoint_that_answers_is_used_and_kept(etcd, caplog):
    (dead,) = free_ports(1, "127.0.0.1")
    async with connected([f"http://127.0.0.1:{dead}", *etcd.endpoints]) as client:
        client._index = 0
        with caplog.at_level(logging.INFO):
            await client.get(b"/none")
            assert client.endpoint == etcd.endpoints[0]
            await client.get(b"/none")
    assert [record.getMessage().rpartition("; ")[2] for record in caplog.records] == [
        f"going on with {etcd.endpoints[0]}"
    ]


async def test_the_only_endpoint_answers_again(etcd, caplog, monkeypatch):
    async with connected(etcd.endpoints[:1]) as client:
        await client.get(b"/none")
        with monkeypatch.context() as patched:
            patched.setattr(client._session, "run", away)
            await client.get(b"/none")
    assert [record.getMessage() for record in caplog.records] == ["gone; it answers again"]


async def away(_work):
    raise AwayError("gone")


async def test_a_member_that_is_behind_is_left_and_its_watches_go_on(etcd, prefix):
    async with Lagging(etcd.endpoints[0]) as lagging, connected([lagging.endpoint, *etcd.endpoints]) as client:
        client._index = 0
        async with aclosing(client.watch(prefix.encode(), 0)) as batches:
            await anext(batches)
            lease = await client.lease_grant(60)
            assert (await client.put_if(f"{prefix}/a".encode(), b"1", lease, 0)).succeeded
            assert client.endpoint == etcd.endpoints[0]
            assert [event.kv.value for event in (await anext(batches)).events] == [b"1"]
        await client.lease_revoke(lease)
        assert lagging.refused == 1


async def test_a_member_that_is_behind_and_alone_is_named(etcd):
    async with Lagging(etcd.endpoints[0]) as lagging, connected([lagging.endpoint]) as client:
        with pytest.raises(RegistryError, match=f"etcd {lagging.endpoint}: too many requests"):
            await client.lease_grant(60)


async def test_tls_with_a_certificate_authority_alone(authority):
    with Etcd(authority=authority) as etcd:
        async with connected(etcd.endpoints, Access(cafile=authority.ca.cert)) as client:
            assert await client.get(b"/none") is None
            async with aclosing(client.watch(b"/", 0)) as batches:
                assert (await anext(batches)).events == ()
        strangers = Authority(authority.ca.cert.parent.parent / "strangers")
        for access in (Access(), Access(cafile=strangers.ca.cert)):
            text = await refusal(etcd.endpoints, access)
            assert f"etcd {etcd.endpoints[0]}: its certificate cannot be verified with --etcd-cafile" in text
        text = await refusal([etcd.endpoints[0].replace("https", "http")])
        assert "perhaps it speaks https, not http" in text


async def test_an_endpoint_without_a_scheme_is_spoken_to_as_the_flags_suggest(authority, etcd):
    """With certificates TLS, without them none, as etcd's own client does."""
    async with connected([etcd.endpoints[0].removeprefix("http://")]) as client:
        assert await client.get(b"/none") is None
        assert client.endpoint == etcd.endpoints[0]
    with Etcd(authority=authority) as secure:
        bare = [secure.endpoints[0].removeprefix("https://")]
        async with connected(bare, Access(cafile=authority.ca.cert)) as client:
            assert await client.get(b"/none") is None
            assert client.endpoint == secure.endpoints[0]


async def test_tls_on_both_sides(authority, etcd, caplog):
    client_only = Access(authority.ca.cert, authority.client.cert, authority.client.key)
    with Etcd(authority=authority, mutual=True) as mutual:
        async with connected(mutual.endpoints, client_only) as client:
            assert (await client.put_if(b"/a", b"1", 0, 0)).succeeded
            assert mutual.ctl("get", "--print-value-only", "/a") == "1"
        text = await refusal(mutual.endpoints, Access(authority.ca.cert))
        assert "perhaps it wants a client certificate" in text
    async with connected(etcd.endpoints, client_only) as client:
        assert await client.get(b"/none") is None
    assert "etcd over http: certificates are of no use there" in caplog.text
    text = await refusal([etcd.endpoints[0].replace("http", "https")], client_only)
    assert "perhaps it speaks http, not https" in text


async def test_a_certificate_for_another_host_is_refused(tmp_path, able):
    elsewhere = Authority(tmp_path / "ca", "192.0.2.1")
    with Etcd(authority=elsewhere) as etcd:
        text = await refusal(etcd.endpoints, Access(elsewhere.ca.cert))
    assert "its certificate is for other names" in text


async def test_certificates_are_checked_before_anything_is_sent(authority, tmp_path):
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    ca, cert, key = authority.ca.cert, authority.client.cert, authority.client.key
    for access, expected in (
        (Access(tmp_path / "none"), f"--etcd-cafile: cannot read {tmp_path}/none: No such file or directory"),
        (Access(ca, cert, tmp_path), f"--etcd-keyfile: cannot read {tmp_path}: Is a directory"),
        (Access(junk), f"--etcd-cafile: {junk}: expected certificates as PEM"),
        (Access(ca, cert, junk), f"--etcd-certfile {cert} and --etcd-keyfile {junk}: expected a certificate and its"),
        (Access(ca, cert, authority.server.key), "KEY_VALUES_MISMATCH"),
        (Access(ca, authority.server.cert, key), "KEY_VALUES_MISMATCH"),
    ):
        with pytest.raises(HostError) as caught:
            Client(["https://127.0.0.1:1"], access)
        assert expected in str(caught.value)


async def test_a_password_is_asked_for_and_shown_nowhere(able, caplog):
    login = Access(username="flannel", password="s3cret words")  # noqa: S106  (of a test's own etcd)
    with Etcd() as etcd:
        async with connected(etcd.endpoints, login) as client:  # not needed yet: no reason to fail
            assert await client.get(b"/none") is None
        etcd.require_login("flannel", "s3cret words")
        async with connected(etcd.endpoints, login) as client:
            assert (await client.put_if(b"/a", b"1", 0, 0)).succeeded
            async with aclosing(client.watch(b"/a", 1)) as batches:
                assert (await anext(batches)).events == ()
        assert "user name is empty" in await refusal(etcd.endpoints)
        wrong = await refusal(etcd.endpoints, Access(username="flannel", password="s3cret"))  # noqa: S106
        assert wrong == f"etcd {etcd.endpoints[0]}: authentication failed, invalid user ID or password"
    assert "s3cret" not in repr(login) + caplog.text


async def test_a_login_that_was_refused_or_not_needed_is_tried_again(able):
    login = Access(username="flannel", password="new")  # noqa: S106
    with Etcd() as etcd:
        async with connected(etcd.endpoints, login) as before:
            await before.get(b"/none")
            etcd.require_login("flannel", "old")
            async with connected(etcd.endpoints, login) as client:
                for _ in range(2):
                    with pytest.raises(RegistryError, match="authentication failed, invalid user ID or password"):
                        await client.get(b"/none")
                etcd.ctl("user", "passwd", "flannel", "--interactive=false", text="new")
                assert await client.get(b"/none") is None
            assert await before.get(b"/none") is None


async def test_a_login_that_etcd_has_forgotten_is_renewed(able):
    with Etcd() as etcd:
        etcd.require_login("flannel", "pw")
        async with connected(etcd.endpoints, Access(username="flannel", password="pw")) as client:  # noqa: S106
            await client.put_if(b"/a", b"1", 0, 0)
            session = client._session
            for spoil in ("another word", "revoked.1"):
                session._token = spoil
                assert (await client.get(b"/a")).value == b"1"
                session._token = spoil
                async with aclosing(client.watch(b"/a", 1)) as batches:
                    await anext(batches)
                    assert (await anext(batches)).events
            assert client._session is session
            etcd.stop()
            etcd.start()
            etcd.ready()
            assert (await client.get(b"/a")).value == b"1"


async def test_a_closed_client_says_so(etcd, prefix):
    async with connected(etcd.endpoints) as client:
        batches = client.watch(prefix.encode(), 0)
        await anext(batches)
        await client.close()
        with pytest.raises(RegistryError, match="closed"):
            await anext(batches)
        with pytest.raises(RegistryError, match="closed"):
            await client.get(b"/none")


async def test_what_is_no_endpoint_is_named():
    with pytest.raises(UsageError, match="--etcd-endpoints: 'etcd' is not an endpoint"):
        Client(["http://127.0.0.1:2379", "etcd"], Access())


async def test_a_silent_endpoint_costs_a_bounded_time(able):
    with Etcd() as etcd:
        async with connected(etcd.endpoints, request_s=2) as client:
            await client.get(b"/none")
            etcd.silence()
            began = time.monotonic()
            with pytest.raises(RegistryError, match=r"no answer within 2 s"):
                await client.get(b"/none")
            with pytest.raises(RegistryError, match=r"no watch within 2 s"):
                await anext(client.watch(b"/", 0))
            assert time.monotonic() - began < 15
            etcd.wake()
            assert await client.get(b"/none") is None
