"""The page of the bench: every mark is filled, figures come from the document and from nowhere else."""

import re

import pytest

from bench import docs, plots
from bench.result import Cell, Document

PLACE = {"congestion": ["cubic"], "load_before": [0.1, 0.1, 0.1], "offloads": {"gso": True, "tso": False}}
DEVICES = {"devices": {"eth0": {"mtu": 1500, "qdisc": "noqueue", "txqueuelen": 1000}}}
MACHINE = {"cpu": "A Fast One", "cores": 2, "kernel": "6.1", "load_at_start": [0.1, 0.1, 0.1]}


@pytest.fixture
def document(monkeypatch):
    monkeypatch.setattr(plots, "draw_all", lambda *_: ["throughput"])
    made = Document(MACHINE, "0123456789abcdef-dirty", settings={"cc": "cubic", "pairs": 5, "seconds": 3})
    made.systems = {
        name: {"what": f"what {name} is", "version": "", "encrypted": name == "wireguard-go", "against": against}
        for name, against in (
            ("vxlan", ""),
            ("udp", "udp-bare-loop"),
            ("wireguard-go", ""),
            ("udp-bare-loop", ""),
            ("udp-subnets-1", "udp-subnets-1"),
            ("udp-subnets-256", "udp-subnets-1"),
        )
    }
    made.skipped = {"vtun": "needs vtund"}
    for place, (system, rate) in enumerate({"vxlan": 10, "udp": 7, "wireguard-go": 1, "udp-bare-loop": 7}.items()):
        series = made.of(Cell("wire", "host-host", 1500, "cubic", "tcp-1"), system)
        series.encrypted, series.surroundings = system == "wireguard-go", {**PLACE, **DEVICES}
        for number in range(5):
            series.add(number, {"throughput_bps": rate * 1e9 + number, "cores_per_gbps": 0.1 + place, "drops": 0})
    for system in ("udp-subnets-1", "udp-subnets-256"):
        made.of(Cell("wire", "host-host", 1500, "cubic", "publish"), system).add(1, {"gap_s": 0.002, "rss_bytes": 6e7})
        made.of(Cell("wire", "host-host", 1500, "cubic", "tcp-1"), system).add(1, {"throughput_bps": 5e9})
    return made.as_json("vxlan")


def template(name):
    return (docs.TEMPLATES / name).read_text()


def test_every_mark_is_known():
    texts = [template(name) for name in docs.PAGES]
    assert [list(docs.unknown_marks(text)) for text in texts] == [[], []]
    assert {mark for text in texts for mark in re.findall(r"\{\{(\w+)\}\}", text)} == docs.MARKS.keys()


def test_without_a_run_the_page_says_so():
    page = "".join(docs.render(template(name), None) for name in docs.PAGES)
    assert page.count(docs.NO_RUN) == len(docs.MARKS)
    assert "{{" not in page


def test_the_headline_compares_with_vxlan(document, tmp_path, monkeypatch):
    monkeypatch.setattr(docs, "RECORDED", tmp_path)
    (line,) = (it for it in docs.headline(document).splitlines() if "tcp-1" in it)
    assert "10.00 Gb/s | 7.00 Gb/s | 0.70 (0.70-0.70) | 5 | worse | ≥ 1 " in line


def test_udp_one_by_one_stands_beside_udp_merged():
    made = Document(MACHINE, "0123456789abcdef", settings={"cc": "cubic", "pairs": 5, "seconds": 3})
    made.systems = {
        name: {"what": "", "version": "", "encrypted": False, "against": against}
        for name, against in (("vxlan", ""), ("udp", "udp-bare-loop"), ("udp-merging", "udp"))
    }
    for system, rate in {"vxlan": 200, "udp": 180, "udp-merging": 270}.items():
        series = made.of(Cell("wire", "host-host", 1500, "cubic", "udp-64"), system)
        for number in range(5):
            series.add(number, {"delivered_pps": rate * 1e3 + number})
    header, _, line = docs.twin("udp-merging", "one by one", "merged")(made.as_json("vxlan"), None).splitlines()
    assert "| one by one | merged | merged : one by one |" in header
    assert "| 180.0 k/s | 270.0 k/s | 1.50 (1.50-1.50) | 5 |" in line
    assert line.endswith("| 0.90 (0.90-0.90) |")


def test_where_vxlan_is_better(document):
    table = docs.worse(document)
    assert "0.70 (0.70-0.70)" in table
    assert "wireguard" not in table


def test_encrypted_is_said_where_it_is_paid_for(document):
    assert "wireguard-go *encrypted*" in docs.all_figures(document)
    assert "*(encrypted)*" in docs.versions(document)


def test_the_price_of_python(document):
    assert "no difference" in docs.pump(document)


def test_scale_has_a_line_for_each_size(document):
    lines = docs.scale(document).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 1", "| 256"]
    assert "60.0 MB" in lines[-1]


def test_what_was_not_measured_is_named(document):
    assert "not measured: needs vtund" in docs.versions(document)


def test_the_whole_page(document):
    page = docs.render(template("benchmarks.md"), document)
    figures = docs.render(template("figures.md"), document)
    assert docs.NO_RUN not in figures
    assert docs.NO_RUN not in page
    assert "![throughput](benchmarks/throughput.svg)" in page
    assert "A Fast One" in figures


def test_the_first_page_stays_one_page():
    """What a reader wants first fits on a screen or two; all the rest is a page further."""
    assert len(template("benchmarks.md").splitlines()) < 80


def test_a_table_without_rows_is_a_sentence():
    assert docs.markdown(("a",), []) == docs.NOTHING


def test_a_plot_says_where_it_comes_from(document):
    text = plots.caption(document, [row for row in document["rows"] if row["system"] == "udp"])
    for words in ("A Fast One, 2 cores", "6.1", "cubic", "0123456789ab and changes", "eth0 noqueue 1000", "wire: gso"):
        assert words in text
