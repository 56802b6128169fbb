"""What restarts cost: a run that does not show what is promised says so."""

import pytest

from bench import restart, restart_page

GOOD = {"came": 100_000, "lost": 0, "late": 0, "pause_s": 0.012, "span_s": 2.0}


def document(**changed):
    seen = [GOOD | changed]
    return {"series": [{"system": "udp", "event": "upgrade", "under": "stream", "rate": 50_000, "seen": seen}]}


def test_a_row_shows_what_came_in_a_second():
    row = ["udp", "upgrade", "50,000", "50,000", "1", "0", "0", "12.0 ms", "12.0 ms"]
    assert restart_page.rows(document(), "stream") == [row]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({}, None),
        ({"lost": 3}, "3 lost"),
        ({"pause_s": 0.021}, "a gap of 21.0 ms"),
        ({"came": 62_000}, "31,000 came"),
    ],
)
def test_an_upgrade_is_not_felt_at_the_rate_that_is_named(changed, complaint):
    where = "udp, upgrade under stream of 50,000 a second"
    assert restart.broken(document(**changed)) == ([f"{where}: {complaint}"] if complaint else [])
