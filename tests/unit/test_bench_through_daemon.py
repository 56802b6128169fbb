"""vxlan and host-gw through our daemon: chosen beside those set up by hand, named apart, and compared with them."""

import pytest

from bench import __main__ as bench
from bench import plan, show, systems
from bench.result import Cell, Document

CELL = Cell("wire", "host-host", 1500, "cubic", "tcp-1")


def chosen(*words):
    return bench.chosen(bench.parser().parse_args(words))


def test_each_follows_the_one_set_up_by_hand():
    (group,) = chosen("--systems", "host-gw,udp,vxlan", "--links", "wire", "--through-daemon").groups
    assert group.systems == ("host-gw", "host-gw-through-daemon", "udp", "vxlan", "vxlan-through-daemon")


def test_none_is_measured_twice():
    made = plan.everything()
    assert made.through_daemon() == made


@pytest.mark.parametrize("words", [(), ("--quick",)])
def test_none_is_measured_unasked(words):
    ours = {twin.name for twin in systems.THROUGH_DAEMON.values()}
    assert not chosen(*words).systems().keys() & ours
    assert "vxlan-through-daemon" in chosen(*words, "--through-daemon").systems()


def test_a_quick_run_stays_quick():
    assert chosen("--quick", "--through-daemon").cost_s() <= 150


def test_nothing_to_set_up_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        chosen("--systems", "udp,tinc", "--through-daemon")
    assert ended.value.code == 2
    assert "expected vxlan or host-gw among the systems, got udp, tinc" in capsys.readouterr().err


def test_what_is_compared_is_the_same_but_for_who_sets_it_up():
    for name, ours in systems.THROUGH_DAEMON.items():
        by_hand = systems.BY_NAME[name]
        assert ours.against == name == ours.backend
        assert (ours.device, ours.overhead_bytes, ours.paths) == (
            by_hand.device, by_hand.overhead_bytes, by_hand.paths,
        )  # fmt: skip


def test_the_ratios_to_those_set_up_by_hand():
    document = Document({}, "", systems={name: {"against": it.against} for name, it in systems.BY_NAME.items()})
    for number in range(5):
        for place, system in enumerate(("vxlan", "host-gw", "host-gw-through-daemon"), 1):
            document.of(CELL, system).add(number, {"throughput_bps": place * 1e9})
    (line,) = show.agreement(document.as_json("vxlan")).splitlines()[2:]
    assert line.split("  ")[1].split() == ["host-gw-through-daemon", ":", "host-gw"]
    assert line.split()[-3:] == ["1.50", "1.50-1.50", "better"]
    document.of(CELL, "host-gw-through-daemon").complaints.append("0 of 5 bytes")
    assert "NO PROOF" in show.agreement(document.as_json("vxlan"))


def test_nothing_is_said_where_none_was_measured():
    document = Document({}, "")
    document.of(CELL, "vxlan").add(1, {"throughput_bps": 1e9})
    assert show.agreement(document.as_json("vxlan")) == ""


def test_another_version_runs_in_turn_with_this_one():
    (group,) = chosen("--systems", "vxlan,udp", "--links", "wire", "--before").groups
    assert group.systems == ("vxlan", "udp", "udp-before")
    assert "udp-before" not in chosen("--floors").systems()
    assert all(it.systems[-2:] == ("udp", "udp-before") for it in chosen("--floors", "--before").groups)


def test_another_version_has_to_be_named(monkeypatch):
    monkeypatch.delenv("BEFORE", raising=False)
    assert systems.BY_NAME["udp-before"].missing() == "BEFORE=path of another version's udp-backend"


def test_a_named_selection_takes_no_other(capsys):
    with pytest.raises(SystemExit) as ended:
        chosen("--floors", "--links", "wire")
    assert ended.value.code == 2
    assert "--links: not allowed with --floors" in capsys.readouterr().err
