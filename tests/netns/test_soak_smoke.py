"""The bench of an hour, for some seconds: both daemons are sampled under load, and the document says so."""

import json
import subprocess
import sys

import pytest

from bench import soak
from bench.soak import Sample

SECONDS = 17


@pytest.fixture(scope="module")
def document(able, tmp_path_factory):
    path = tmp_path_factory.mktemp("soak") / "soak.json"
    command = [sys.executable, "-m", "bench", "soak", "--minutes", str(SECONDS / 60), "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    # 1 is a slope, of which seconds after a start say nothing.
    assert done.returncode in (0, 1), done.stderr
    assert path.exists(), done.stderr
    return json.loads(path.read_text())


def test_both_daemons_are_sampled_under_load(document):
    assert [len(one) for one in document["samples"]] == [SECONDS // soak.EVERY_S] * 2
    assert all(it["rss_bytes"] > 1 << 20 and it["fds"] > 3 for one in document["samples"] for it in one)
    there, here = document["carried"]
    assert there["tx_bytes"] > SECONDS * 10e6
    assert here["rx_bytes"] > SECONDS * 10e6


def test_every_edit_was_published(document):
    assert document["publications"] == [SECONDS // soak.EVERY_S] * 2


def test_a_row_for_each(document):
    assert [row[0] for row in soak.rows(document)] == ["a", "b"]


def test_the_slope_is_of_what_comes_after_the_warm_up():
    early = [Sample(float(at), 0, 0, 0) for at in range(20)]
    late = [Sample(float(at), at * 1000, 0, 0) for at in range(20, 100)]
    assert soak.slope(early + late) == pytest.approx(1000 * 3600)
