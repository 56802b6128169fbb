"""The document of the bench: its rows and ratios, the proof of path, and how it is shown."""

import json

import pytest

from bench import bed, measure, plan, proof, show, systems, workloads
from bench.measure import costs
from bench.result import Cell, Document, save
from bench.systems import Carried
from bench.workloads import METRICS, Outcome

CELL = Cell("wire", "host-host", 1500, "cubic", "tcp-1")
ROW = {"system", "link", "path", "mtu", "cc", "workload", "metric", "unit", "samples", "median", "min", "max", "runs"}
RATIO = {"system", "against", "link", "path", "mtu", "cc", "workload", "metric", "median", "min", "max", "pairs"}


def document():
    made = Document({"cpu": "x"}, "abc", systems={"udp": {"against": "udp-bare-loop"}})
    for number in range(5):
        made.of(CELL, "vxlan").add(number, {"throughput_bps": 1e9 + number, "retransmits": 0})
        made.of(CELL, "udp").add(number, {"throughput_bps": 2e9 + number, "retransmits": number})
        made.of(CELL, "udp-bare-loop").add(number, {"throughput_bps": 2e9 + 4 - number})
    return made


def test_rows_have_the_fields_that_are_promised():
    rows = list(document().rows())
    assert all(row.keys() >= ROW for row in rows)
    first = rows[0]
    assert (first["system"], first["metric"], first["unit"]) == ("vxlan", "throughput_bps", "bit/s")
    assert (first["median"], first["min"], first["max"], first["runs"]) == (1e9 + 2, 1e9, 1e9 + 4, 5)


def test_ratios_are_to_the_reference_and_to_a_system_s_opposite():
    ratios = list(document().ratios("vxlan"))
    assert all(ratio.keys() >= RATIO for ratio in ratios)
    by = {(ratio["system"], ratio["against"], ratio["metric"]): ratio for ratio in ratios}
    assert by["udp", "vxlan", "throughput_bps"]["median"] == pytest.approx(2, rel=1e-6)
    assert by["udp", "vxlan", "throughput_bps"]["verdict"] == "better"
    assert by["udp", "udp-bare-loop", "throughput_bps"]["verdict"] == "no difference"
    assert ("vxlan", "vxlan", "throughput_bps") not in by
    assert ("udp", "vxlan", "retransmits") not in by  # zeros have no ratio


def test_only_runs_of_the_same_round_are_pairs():
    made = Document({}, "")
    made.of(CELL, "vxlan").values["throughput_bps"] = {1: 10, 2: 20, 7: 1000}
    made.of(CELL, "udp").values["throughput_bps"] = {2: 40, 1: 30}
    (ratio,) = made.ratios("vxlan")
    assert (ratio["pairs"], ratio["min"], ratio["max"]) == (2, 2, 3)


def test_less_is_better_where_it_is():
    made = Document({}, "")
    for number in range(5):
        made.of(CELL, "vxlan").add(number, {"latency_p50_s": 1e-5 + number * 1e-8})
        made.of(CELL, "udp").add(number, {"latency_p50_s": 5e-5 + number * 1e-8})
    (ratio,) = made.ratios("vxlan")
    assert ratio["verdict"] == "worse"


def test_it_is_saved_as_json(tmp_path):
    path = tmp_path / "deep" / "x.json"
    save(document().as_json("vxlan"), path)
    read = json.loads(path.read_text())
    assert read.keys() >= {"machine", "commit", "rows", "ratios"}
    assert [it.name for it in path.parent.iterdir()] == ["x.json"]


def test_the_table_shows_every_headline_with_its_ratio():
    made = document().as_json("vxlan")
    lines = show.table(made, "vxlan").splitlines()
    ours = next(line for line in lines if " udp " in line)
    assert "2.00" in ours
    assert "better" in ours
    assert len(lines) == 2 + 3


def test_a_row_without_proof_says_so():
    made = document()
    made.of(CELL, "udp").complaints.append("0 of 5 bytes")
    assert "NO PROOF" in show.table(made.as_json("vxlan"), "vxlan")
    assert made.complaints == ["udp, wire, host-host, MTU 1500, tcp-1: 0 of 5 bytes"]


def test_proof_of_path():
    full = Carried(tx_bytes=1100, rx_bytes=1100)
    assert proof.missing(1000, 0, full, full) == ""
    assert proof.missing(1000, 1000, full, full) == ""
    assert "0 of 1000 bytes received by the server's side" in proof.missing(1000, 0, full, Carried(0, 0))
    assert "sent by the client's side" in proof.missing(1000, 0, Carried(999, 9999), full)
    assert "received by the client's side" in proof.missing(0, 1000, Carried(0, 10), full)
    assert proof.missing(0, 0, full, full) == "nothing arrived"


def used(**more):
    values = {"machine_busy_s": 4.0, "system_busy_s": 1.0, "here": Carried(0, 0), "there": Carried(0, 0), "drops": 3}
    return bed.Usage(**{**values, **more})


def test_costs_are_per_what_arrived():
    found = costs(Outcome({}, 1, bits=20e9), used())
    assert (found["cores_per_gbps"], found["daemon_cores_per_gbps"], found["drops"]) == (0.2, 0.05, 3)
    assert costs(Outcome({}, 1, packets=1000), used())["cpu_ns_per_packet"] == pytest.approx(4e6)
    assert costs(Outcome({}, 1, bits=20e9, whole=False), used()) == {}


def test_plans_fit_their_promises():
    assert plan.quick().cost_s() <= 100
    assert plan.full().cost_s() <= 40 * 60
    quick = plan.quick()
    assert quick.pairs == 3
    assert plan.full().pairs >= 5
    cells = {(group.link, name) for group in quick.groups for name in group.workloads}
    assert {(link, name) for link in ("pass-through", "wire") for name in ("tcp-1", "tcp-4")} <= cells


def test_a_plan_leaves_out_what_cannot_be_measured():
    made = plan.combined(("vxlan", "tinc"), ("wire",), ("host-host",), ("tcp-1",), (1500,)).without(("tinc",))
    assert list(made.systems()) == ["vxlan"]
    bare = plan.combined(("vxlan", "bare"), ("wire",), ("pod-pod",), ("tcp-1",), (1500,)).without(())
    assert bare.groups[0].systems == ("vxlan",)


def test_publications_are_asked_only_of_systems_that_have_them():
    group = plan.Group(("vxlan", "udp-subnets-256"), "wire", "host-host", ("publish",))
    assert group.turns("publish") == ("udp-subnets-256",)


def test_every_metric_of_a_headline_exists():
    assert {metric for _, metric in workloads.HEADLINES} <= METRICS.keys()
    assert len(systems.BY_NAME) == len(systems.ALL)
    assert len(workloads.BY_NAME) == len(workloads.ALL)


def test_a_missing_program_is_a_named_skip(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("FLANNELD", raising=False)
    found = measure.skipped(["vxlan", "tinc", "flannel-udp"])
    assert found == {"tinc": "needs tincd", "flannel-udp": "needs FLANNELD=path of a flanneld and etcd"}
