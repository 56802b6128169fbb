"""Permission to choose cubic: added for as long as it is needed, and taken away again."""

from contextlib import ExitStack

import pytest

from bench import congestion


@pytest.fixture
def files(tmp_path):
    allowed, available = tmp_path / "allowed", tmp_path / "available"
    allowed.write_text("reno bbr\n")
    available.write_text("reno bbr cubic\n")
    return {"allowed": allowed, "available": available, "users": tmp_path / "users"}


def test_cubic_is_allowed_meanwhile(files):
    with congestion.permitted("cubic", **files) as got:
        assert got == "cubic"
        assert files["allowed"].read_text().split() == ["reno", "bbr", "cubic"]
    assert files["allowed"].read_text().split() == ["reno", "bbr"]


def test_what_is_allowed_already_stays(files):
    with congestion.permitted("bbr", **files) as got:
        assert got == "bbr"
    assert files["allowed"].read_text() == "reno bbr\n"


def test_what_the_kernel_lacks_becomes_reno(files):
    files["available"].write_text("reno\n")
    with congestion.permitted("cubic", **files) as got:
        assert got == "reno"


def test_what_one_bench_added_stays_until_the_last_is_out(files):
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(congestion.permitted("cubic", **files))
        assert second.enter_context(congestion.permitted("cubic", **files)) == "cubic"
        first.close()
        assert files["allowed"].read_text().split() == ["reno", "bbr", "cubic"]
    assert files["allowed"].read_text().split() == ["reno", "bbr"]


def test_what_a_killed_bench_added_goes_with_the_next(files):
    files["allowed"].write_text("reno bbr cubic\n")
    files["users"].write_text("cubic\n")
    with congestion.permitted("cubic", **files) as got:
        assert got == "cubic"
    assert files["allowed"].read_text().split() == ["reno", "bbr"]
    with congestion.permitted("reno", **files):
        files["allowed"].write_text("reno bbr cubic\n")
    assert files["allowed"].read_text().split() == ["reno", "bbr", "cubic"], "added by somebody else"


def test_an_interruption_takes_it_back_too(files):
    with pytest.raises(KeyboardInterrupt), congestion.permitted("cubic", **files):
        raise KeyboardInterrupt
    assert files["allowed"].read_text().split() == ["reno", "bbr"]
