"""What `status -w` says beside the document: each peer's rates, and what changed since the last look."""

from msgspec.structs import replace
from observed import facts, kernel, peer, values

from udpbackend.commands.status_change import compare, title
from udpbackend.commands.status_text import render
from udpbackend.commands.table import Palette
from udpbackend.observe.build import build
from udpbackend.observe.report import Verdict

PLAIN = Palette(on=False)


def looks(seconds=2.0, **later):
    before = build(facts())
    after = build(facts(**later))
    return before, replace(after, uptime_s=before.uptime_s + seconds)


def moved(**changes):
    return [peer("192.0.2.2"), peer("192.0.2.3", **changes)]


def test_a_peers_rates_are_what_it_moved_between_the_looks():
    before, after = looks(peers=moved(tx_packets=27, tx_bytes=10_700, rx_packets=9, rx_bytes=1500))
    rates = compare(before, after).rates
    assert rates["192.0.2.3"] == (10, 2, 40_000, 4000)
    assert rates["192.0.2.2"] == (0, 0, 0, 0)


def test_the_busiest_peer_comes_first_with_its_rates():
    before, after = looks(peers=moved(tx_packets=27, tx_bytes=10_700))
    lines = render(after, wide=False, palette=PLAIN, change=compare(before, after))
    at = next(i for i, line in enumerate(lines) if line.startswith("PEER"))
    assert lines[at].split()[-4:] == ["TX-PACKETS/S", "TX-BITS/S", "RX-PACKETS/S", "RX-BITS/S"]
    assert [line.split()[0] for line in lines[at + 1 : at + 3]] == ["gamma", "beta"]
    assert "40.0 kb/s" in lines[at + 1]
    assert "TX-BITS/S" not in "\n".join(render(after, wide=True, palette=PLAIN))


def test_what_changed_is_said_once_and_in_words():
    before, after = looks(counters=values({"tx_drop_no_route": 9}), kernel=kernel(socket_rx_dropped=13))
    gone = replace(
        after,
        peers=after.peers[:1],
        peers_total=1,
        offloads=[],
        routes=1,
        verdict=Verdict(state="degraded", text="degraded", reasons=[]),
    )
    gone = replace(gone, peers=[replace(gone.peers[0], path_mtu=1300)])
    change = compare(before, gone)
    assert change.lines == [
        "ready became degraded",
        "gone: peer gamma (192.0.2.3)",
        "peer beta (192.0.2.2): path MTU 1300",
        "tx_drop_no_route +7",
        "socket_rx_dropped +4",
        "offloads none, were csum",
        "routes 4 became 1",
    ]
    assert title(change) == "changed in the last 2s:"
    assert "  gone: peer gamma (192.0.2.3)" in render(gone, wide=False, palette=PLAIN, change=change)


def test_nothing_is_said_of_what_stayed_the_same():
    before, after = looks()
    change = compare(before, after)
    assert change.lines == []
    assert not any("changed" in line for line in render(after, wide=False, palette=PLAIN, change=change))


def test_a_daemon_that_was_started_anew_is_not_compared():
    before, after = looks()
    assert compare(before, replace(after, started_at=after.started_at.replace(year=2027))) is None
    assert compare(before, before) is None


def test_of_many_that_came_a_few_are_named():
    before, after = looks()
    many = [replace(after.peers[0], node=f"n{i}", public_ip=f"198.51.100.{i}") for i in range(9)]
    change = compare(before, replace(after, peers=[*after.peers, *many], peers_total=11))
    assert change.lines[0].startswith("new: peer n0 (198.51.100.0), ")
    assert change.lines[0].endswith(" and 4 more")
