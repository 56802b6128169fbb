"""The bench of thousands of nodes at work on a few: a document, and the section of the page that is made of it."""

import json
import shutil
import subprocess
import sys

import pytest

from bench import docs, scale, scale_page

NODES = 50


@pytest.fixture(scope="module")
def document(able, tmp_path_factory):
    lacking = [program for program in scale.PROGRAMS if shutil.which(program) is None]
    if lacking:
        pytest.skip(f"needs {', '.join(lacking)}")
    path = tmp_path_factory.mktemp("scale") / "scale.json"
    command = [sys.executable, "-m", "bench", "scale", "--nodes", str(NODES), "--rate", "100", "--seconds", "2"]
    command += ["--pairs", "1", "--anyway", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    # 1 is a latency that has doubled: of two seconds on a busy machine that says nothing.
    assert done.returncode in (0, 1), done.stderr
    assert path.exists(), done.stderr
    return json.loads(path.read_text())


def test_the_table_is_full_and_stays_equal(document):
    assert [it["routes"] for it in document["starts"]] == [NODES - 1] * scale.STARTS
    assert document["agreed_leases"] == NODES


def test_changes_are_followed_only_where_they_are_ours(document):
    quiet, watched, elsewhere = document["windows"]
    assert [it["kind"] for it in document["windows"]] == ["quiet", "watched", "elsewhere"]
    assert quiet["changes_per_s"] == 0
    assert watched["changes_per_s"] > 20
    assert elsewhere["changes_per_s"] > 20
    assert watched["publications_per_s"] > 1
    assert elsewhere["publications_per_s"] == quiet["publications_per_s"] == 0


def test_the_section_of_the_page(document):
    text = scale_page.section(document, docs.markdown)
    assert "{{" not in text
    assert "| followed : not followed |" in text


def test_a_page_without_such_a_run_has_no_such_section(document, tmp_path, monkeypatch):
    monkeypatch.setattr(docs, "RECORDED", tmp_path)
    assert docs.render("a\n\n{{cluster}}\n\nb\n", {"some": "run"}).endswith("a\n\nb\n")
    (tmp_path / "scale.json").write_text(json.dumps(document))
    assert "## Thousands of nodes" in docs.render("{{cluster}}", {"some": "run"})


def test_a_ping_that_doubles_counts_like_a_ping_pong():
    well = {"latency_p99_s": 1.5, "ping_p99_s": 1.4, "latency_p50_s": 3.0}
    assert scale.doubled(well) == []
    assert scale.doubled(well | {"ping_p99_s": 2.7}) == ["ping_p99_s"]
    assert scale.doubled(well | {"latency_p99_s": 2.0}) == ["latency_p99_s"]
