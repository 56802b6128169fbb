"""The status document: the law adds up, the verdict says what is the matter, the schema is fresh and holds."""

import json

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from observed import SOME, facts, ipv6_facts, lease, peer, values, vxlan_facts

from udpbackend.backends.udp_drops import KERNEL_DROPS
from udpbackend.dataplane.native import LastError, counter_infos
from udpbackend.observe.build import build
from udpbackend.observe.facts import RegistryView
from udpbackend.observe.peers import NAMED
from udpbackend.observe.reference import BEGIN, DOCS, END, SCHEMA, counter_list, status_schema, with_counters
from udpbackend.observe.report import LastError as ReportedError
from udpbackend.observe.report import Report, age, rank

COUNTS = st.lists(st.integers(0, 2**63), min_size=len(counter_infos()), max_size=len(counter_infos()))


@given(COUNTS, st.integers(0, 2**31))
def test_the_law_leaves_exactly_what_no_term_explains(counters, in_flight):
    law = build(facts(counters=counters, in_flight=in_flight)).law
    for terms, flying in ((law.tx, in_flight), (law.rx, 0)):
        assert terms.in_flight == flying
        assert terms.received == terms.delivered + terms.dropped + terms.in_flight + terms.unexplained


@given(st.sampled_from([info for info in counter_infos() if info.kind == "dropped"]), st.integers(1, 2**40))
def test_a_counted_drop_of_any_cause_explains_its_packets(info, count):
    law = build(facts({f"{info.direction}_received": count, info.name: count})).law
    terms = law.tx if info.direction == "tx" else law.rx
    assert (terms.dropped, terms.unexplained) == (count, 0)


def test_notes_stand_outside_the_law():
    notes = {info.name: 5 for info in counter_infos() if info.kind == "note"}
    law = build(facts(notes)).law
    assert law.tx.unexplained == law.rx.unexplained == 0


def test_ready_counts_the_peers_seen_and_the_age_of_the_view():
    verdict = build(facts()).verdict
    assert (verdict.state, verdict.text) == ("ready", "ready, 1 of 2 peers seen, registry view 3 s old")


def test_a_registry_that_is_away_degrades_and_says_why():
    registry = RegistryView(kind="etcd", source="https://e:2379", age_s=192, degraded="etcd does not answer")
    verdict = build(facts(registry=registry)).verdict
    assert verdict.state == "degraded"
    assert verdict.reasons == ["registry: etcd does not answer"]
    assert verdict.text == "degraded, registry: etcd does not answer, 1 of 2 peers seen, registry view 3m12s old"


def test_an_unanswered_peer_is_named_and_leaves_the_verdict_ready():
    report = build(facts(peers=(peer("192.0.2.2", unanswered_s=12), peer("192.0.2.3", silent_s=None))))
    hint = "(ask `udp-backend doctor` or `udp-backend ping`)"
    assert report.verdict.state == "ready"
    assert report.verdict.reasons == []
    assert report.verdict.text.startswith(f"ready, 0 of 2 peers seen, 1 unanswered: beta (192.0.2.2) {hint}, ")
    assert (report.peers_seen, report.peers_unanswered) == (0, 1)
    assert [(it.state, it.unanswered_s) for it in report.peers] == [("unanswered", 12), ("silent", 0)]
    many = build(facts(leases=(), peers=[peer(f"192.0.2.{i}", unanswered_s=12) for i in range(10, 20)]))
    assert f"10 unanswered: 192.0.2.10, 192.0.2.11, 192.0.2.12, ... {hint}" in many.verdict.text


def test_those_that_do_not_answer_come_first_then_the_silent():
    states = {"seen": 3.0, "silent": None, "unanswered": 3.0}
    peers = [
        peer(f"192.0.2.{i}", silent_s=silent_s, unanswered_s=12 * (state == "unanswered"))
        for i, (state, silent_s) in enumerate(states.items(), 2)
    ]
    for most in (1, 2):
        shown = build(facts(peers=peers), peers_max=most).peers
        assert [it.state for it in shown] == ["unanswered", "silent"][:most]
    assert min(build(facts(peers=peers)).peers, key=rank).state == "unanswered"


def test_problems_degrade():
    assert build(facts(problems=("flannel0 is gone",))).verdict.text.startswith("degraded, flannel0 is gone, ")


def test_a_slow_peer_degrades_and_is_named():
    slow = peer("192.0.2.2", tx_dropped=26320, dropped_ago_s=3.7)
    found = build(facts(slow=[slow], peers=[slow])).verdict
    who = next(it.node for it in facts().nodes.leases if it.public_ip == int(slow.address))
    assert found.state == "degraded"
    assert (
        f"peer {who} (192.0.2.2) takes less than it is sent: 26320 packets dropped, the last 3 s ago" in found.reasons
    )


def test_many_slow_peers_are_counted():
    found = build(facts(slow=[peer(f"192.0.2.{n}", tx_dropped=n, dropped_ago_s=0.2) for n in range(10, 20)])).verdict
    assert len(found.reasons) == NAMED + 1
    assert found.reasons[-1] == f"{10 - NAMED} more peers take less than they are sent"


def test_the_last_error_says_when_and_for_what():
    found = build(facts(last_error=LastError("Invalid argument", "tx_drop_send_error", 7)))
    assert found.last_error == "Invalid argument"
    assert found.last_error_info == ReportedError(text="Invalid argument", counter="tx_drop_send_error", age_s=7)
    assert build(facts()).last_error_info is None


def test_a_start_names_what_it_waits_for_and_needs_no_host():
    registry = RegistryView(kind="static", source="nodes.json")
    bare = facts(
        waiting_for="a lease", network=None, endpoint=None, overlay=None, registry=registry, infos=(), counters=(),
        peers=(), leases=(), kernel={}, subnet=None,
    )  # fmt: skip
    report = build(bare)
    assert (report.verdict.state, report.verdict.text) == ("starting", "starting, waiting for a lease")
    assert (report.network, report.interface) == (None, None)
    jsonschema.validate(json.loads(msgspec.json.encode(report)), json.loads(SCHEMA.read_text()))


def test_a_start_says_why_it_waits():
    away = RegistryView(kind="etcd", source="http://192.0.2.9:2379", degraded="no endpoint answers")
    verdict = build(facts(waiting_for="a lease", registry=away)).verdict
    assert verdict.text == "starting, waiting for a lease, registry: no endpoint answers"


def test_peers_join_leases_and_counters_by_address():
    first, second = build(facts()).peers
    assert (first.node, first.subnets, first.path_mtu) == ("beta", ["10.5.2.0/24", "10.5.4.0/24"], 1400)
    assert (second.node, second.public_ip, second.silent_s) == ("gamma", "192.0.2.3", None)


def test_ipv6_is_shown_beside_ipv4():
    report = build(ipv6_facts())
    assert (report.network.ipv6_network, report.network.ipv6_subnet) == ("fd00:5::/48", "fd00:5:0:1::/64")
    assert report.interface.overlay_ipv6_address == "fd00:5:0:1::"
    assert [peer.subnets for peer in report.peers] == [["10.5.2.0/24", "fd00:5:0:2::/64"], ["10.5.3.0/24"]]
    jsonschema.validate(json.loads(msgspec.json.encode(report)), json.loads(SCHEMA.read_text()))


def test_without_ipv6_nothing_is_said_of_it():
    report = build(facts())
    assert (report.network.ipv6_network, report.network.ipv6_subnet) == (None, None)
    assert report.interface.overlay_ipv6_address is None


def test_the_document_of_a_daemon_without_the_newer_fields_is_read():
    document = json.loads(msgspec.json.encode(build(facts())))
    newer = {
        "network": ("ipv6_network", "ipv6_subnet"),
        "interface": ("overlay_ipv6_address", "overlay_ipv6_device"),
    }
    for part, names in newer.items():
        for name in names:
            del document[part][name]
    del document["ignored"], document["movers"]
    assert msgspec.convert(document, Report) == build(facts())


def test_a_peer_known_to_one_side_only_is_shown():
    found = build(facts(leases=[lease("10.5.9.0/24", "192.0.2.9", "new")], peers=[peer("192.0.2.8")])).peers
    assert [(p.public_ip, p.node, p.tx_packets) for p in found] == [("192.0.2.8", "", 7), ("192.0.2.9", "new", 0)]


def test_without_counters_nobody_claims_to_know_who_was_seen():
    assert build(facts(infos=(), counters=(), peers=())).verdict.text == "ready, 2 peers, registry view 3 s old"


def test_nodes_of_another_backend_are_named_and_are_no_peers():
    report = build(vxlan_facts())
    assert [peer.node for peer in report.peers] == ["beta"]
    [ignored] = report.ignored
    assert (ignored.node, ignored.public_ip, ignored.backend) == ("gamma", "192.0.2.3", "host-gw")
    assert ignored.subnets == ["10.5.3.0/24", "fd00:5:0:3::/64"]
    expected = "ready, 1 peer, 1 node of another backend ignored, registry view 3 s old"
    assert (report.verdict.state, report.verdict.text) == ("ready", expected)
    jsonschema.validate(json.loads(msgspec.json.encode(report)), json.loads(SCHEMA.read_text()))


def test_where_all_have_one_backend_nobody_is_ignored():
    report = build(facts())
    assert report.ignored == []
    assert "ignored" not in report.verdict.text


def test_what_the_kernel_moves_is_not_checked_by_us():
    report = build(vxlan_facts())
    assert report.network.source_check is None
    assert (report.interface.overlay_device, report.interface.overlay_ipv6_device) == ("flannel.1", "flannel-v6.1")
    assert build(facts()).network.source_check == "subnet"


def test_kernel_drops_carry_meaning_and_cure_where_they_could_be_read():
    drops = build(facts()).kernel
    assert [(d.name, d.value) for d in drops] == [("flannel0_tx_dropped", 0), ("socket_rx_dropped", 9)]
    assert all(d.meaning and d.cure for d in drops)


def test_a_list_of_counters_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="shorter"):
        build(facts(counters=values(SOME)[:-1]))


def test_it_survives_the_wire():
    report = build(facts())
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_times_are_rfc_3339():
    document = json.loads(msgspec.json.encode(build(facts())))
    assert document["started_at"] == "2026-01-02T03:04:05Z"
    assert document["registry"]["synced_at"] == "2026-01-02T04:00:00Z"


def test_the_schema_is_fresh():
    assert SCHEMA.read_text() == status_schema(), "run: python -m udpbackend.observe.reference"


def test_the_schema_holds_for_a_report_and_only_for_one():
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(msgspec.json.encode(build(facts())))
    jsonschema.validate(document, schema)
    for key in document:
        cut = {name: value for name, value in document.items() if name != key}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(cut, schema)


def test_the_operations_page_lists_every_counter_with_its_cure():
    text = DOCS.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert with_counters(text) == text, "run: python -m udpbackend.observe.reference"
    names = [info.name for info in counter_infos()] + [it.name for it in KERNEL_DROPS]
    assert all(counter_list().count(f"- `{name}`: ") == 1 for name in names)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m0s"), (192, "3m12s"), (3599, "59m59s"), (18180, "5h3m"),
     (86399, "23h59m"), (86400, "1d0h"), (1_062_000, "12d7h")],
)  # fmt: skip
def test_age(seconds, text):
    assert age(seconds) == text
