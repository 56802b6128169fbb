"""The busy surrounding of the bench: what is measured, how a row says so, and what the page makes of it."""

import os

import pytest
from test_bench_result import used

from bench import busy_page, docs, measure, plan, show, systems
from bench.lab.hogs import hogs
from bench.result import Cell, Document
from bench.workloads import Outcome

MACHINE = {"cores": 2, "cpu": "x", "kernel": "6", "load_at_start": [0.1]}


def document():
    made = Document(MACHINE, "abc", {"pairs": 3, "seconds": 2})
    for loops in (0, 2, 4):
        for link in ("wire", "pass-through"):
            for workload, metrics in busy_page.METRICS.items():
                for system, factor in (("vxlan", 1.0), ("udp", 0.5 + loops), ("udp-nice-0", 0.1)):
                    series = made.of(Cell(link, "host-host", 1500, "cubic", workload, loops), system)
                    for number in range(3):
                        series.add(number, dict.fromkeys(metrics, factor * (1e9 + number)))
    return made


def test_a_cell_says_what_ran_beside_it():
    assert Cell("wire", "host-host", 1500, "cubic", "tcp-1", 2).words().endswith("tcp-1, beside 2 endless loops")
    assert Cell("wire", "host-host", 1500, "cubic", "tcp-1").words().endswith("tcp-1")
    table = show.table(document().as_json("vxlan"), "vxlan")
    assert "tcp-1, beside 4 endless loops" in table


def test_quiet_and_busy_rows_are_no_pairs():
    found = {(it["hogs"], it["system"]): it["median"] for it in document().ratios("vxlan") if it["workload"] == "tcp-1"}
    assert found[0, "udp"] == pytest.approx(0.5)
    assert found[2, "udp"] == pytest.approx(2.5)
    index = show.Index(document().as_json("vxlan"))
    key = ("wire", "host-host", 1500, "tcp-1", "throughput_bps")
    assert (index.row("udp", key)["hogs"], index.row("udp", key, 4)["hogs"]) == (0, 4)


def test_rows_of_before_there_were_busy_ones_are_quiet():
    old = document().as_json("vxlan")
    for row in (*old["rows"], *old["ratios"]):
        del row["hogs"]
    assert {show.hogs(row) for row in old["rows"]} == {0}


def test_what_loops_take_is_not_the_price_of_an_overlay():
    found = measure.costs(Outcome({}, 1, bits=20e9), used(), alone=False)
    assert found.keys() == {"drops", "daemon_cores_per_gbps"}


def test_the_plan_has_every_row_with_a_floor_beside_its_reference():
    made = plan.busy(2)
    assert made.cost_s() <= 12 * 60
    rows = {(it.link, name) for it in made.groups for name in it.workloads if it.hogs == 2}
    assert rows >= busy_page.FLOORS.keys()
    assert all(it.systems[0] == systems.REFERENCE for it in made.groups)
    assert {it.hogs for it in made.groups} == {0, 2, 4}


def test_the_page():
    text = busy_page.in_short(document().as_json("vxlan"), docs.markdown)
    assert "| wire, quiet | 1.00 Gb/s | 0.50 (0.50-0.50) | 0.10 (0.10-0.10) |" in text
    assert "| pass-through, beside 2 loops | 1.00 Gb/s | 2.50 (2.50-2.50) | 0.10 (0.10-0.10) |" in text
    assert "| 2 | wire | tcp-4 | 1.00 Gb/s | 2.50 Gb/s | 2.50 (2.50-2.50) | better | ≥ 1.1 | ≥ 1.4 |" in text
    assert "| 4 | wire" not in text
    text = busy_page.in_full(document().as_json("vxlan"), docs.markdown)
    assert "| 4 | wire | tcp-4 | 1.00 Gb/s | 4.50 Gb/s | 4.50 (4.50-4.50) | better | - | - |" in text


def test_loops_turn_and_are_gone():
    with hogs(2) as pids:
        assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
