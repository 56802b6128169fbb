"""The demonstration's verdicts and tables, from figures that no laboratory has to be built for."""

import dataclasses

import pytest

from bench import demo, trials
from bench.demo import Done, Shown
from bench.lab.daemon import Carried
from bench.lab.parse import Ping, Tcp, Udp
from bench.lab.topology import Host
from bench.lab.wait import LabError
from bench.trials import Trial

A, B = (Host(number, None, None, 1472) for number in (1, 2))
PING = trials.from_ping(Ping(sent=10, received=10, rtt_min_ms=0.1, rtt_avg_ms=0.2, rtt_max_ms=0.3))
LOSSY = trials.from_ping(Ping(sent=10, received=9, rtt_min_ms=0.1, rtt_avg_ms=0.2, rtt_max_ms=0.3))
UDP, HALF, SOME = (trials.from_udp(Udp(1000, 1.0, 0.5, packets=1000, lost=lost, jitter_ms=0.1)) for lost in (0, 500, 1))
TCP = trials.from_tcp(Tcp(1000, 1.0, 7.95, 0, "cubic"))
ENOUGH = Carried(10, 1000, 10, 1000)


def done(seen, sent=ENOUGH, received=ENOUGH, name="ping"):
    return Done(Trial("pod a -> pod b", name, A, B, lambda: seen), seen, sent, received)


def test_a_trial_passes_when_all_that_arrived_was_counted():
    assert done(PING).well
    assert done(TCP).well
    assert done(UDP).well
    assert done(SOME).check == "ok"


def test_what_the_overlay_has_lost_is_not_ok():
    assert demo.row(done(HALF))[-1] == demo.brief(done(HALF)).split()[-1] == "LOST"
    assert dataclasses.replace(done(HALF), overflowed=400).check == "LOST"
    assert dataclasses.replace(done(HALF), overflowed=500).check == "ok", "delivered, and not taken in time"


@pytest.mark.parametrize(
    "wrong",
    [
        done(None),
        done(LOSSY),
        done(PING, sent=Carried(9, 1000, 10, 1000)),
        done(PING, received=Carried(10, 1000, 9, 1000)),
        done(TCP, sent=Carried(10, 999, 10, 1000)),
        done(TCP, received=Carried(10, 1000, 10, 999)),
    ],
)
def test_a_trial_fails_when_the_tool_complains_or_packets_went_another_way(wrong):
    assert not wrong.well
    assert demo.row(wrong)[-1] == "FAILED"
    assert demo.brief(wrong).endswith("FAILED")
    assert not Shown([done(PING), wrong]).well


def test_what_a_cell_says():
    assert demo.brief(done(PING)) == "0.10/0.20/0.30 ms, 0 % lost"
    assert demo.brief(done(TCP)) == "7.95 Gbit/s"


def test_backends_side_by_side():
    columns = {backend: Shown([done(PING), done(TCP, name="TCP")]) for backend in demo.BACKENDS}
    columns["vxlan"] = Shown([], "not ready")
    rows = [row[1:] for row in demo.side_by_side(columns)]
    assert rows == [
        ["packets are moved by", "udp-backend", "the kernel", "the kernel"],
        ["and counted by", "daemon", "flannel.1", "eth0"],
        ["MTU", "1472", "1450", "1500"],
        ["ping", "0.10/0.20/0.30 ms, 0 % lost", "FAILED", "0.10/0.20/0.30 ms, 0 % lost"],
        ["TCP", "7.95 Gbit/s", "FAILED", "7.95 Gbit/s"],
    ]


def test_a_backend_that_does_not_start_leaves_the_others_to_be_seen(monkeypatch, capsys):
    def run(backend, *_):
        if backend == "vxlan":
            raise LabError("no such device type")
        return Shown([done(PING)])

    monkeypatch.setattr(demo, "run", run)
    assert not demo.compare(2, 1)
    said = capsys.readouterr().out
    assert "vxlan FAILED: no such device type" in said
    assert said.count("0 % lost") == 2


@pytest.mark.parametrize(("choose", "count"), [(trials.all_of_them, 7), (trials.one_way, 4)])
def test_where_traffic_goes(choose, count):
    found = list(choose([A, B], 1))
    assert len(found) == count
    assert {it.path for it in found} >= {"pod a -> pod b", "host a -> pod b"}
    assert all((it.sender, it.receiver) == ((A, B) if it.path.endswith("b") else (B, A)) for it in found)
