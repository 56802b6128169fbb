"""`udp-backend ping` against peers that answer, that lose packets, and whose path is narrow."""

import json
import os
import pty
import subprocess

import pytest

from bench.lab.daemon import PORT, program
from bench.lab.wait import until


@pytest.fixture(scope="module")
def three(overlay_of_three):
    return overlay_of_three


def command(overlay, host, *words):
    return [program(), "ping", f"--subnet-file={overlay.run_directory(host) / 'subnet.env'}", *words]


def ping(overlay, host, *words):
    """Exit status, standard output and standard error."""
    done = subprocess.run(
        host.namespace.argv(command(overlay, host, *words)), capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


def rows(overlay, host, *words):
    status, out, err = ping(overlay, host, "-o", "json", *words)
    assert err == ""
    document = json.loads(out)
    assert document["schema"] == 1
    return status, {row["node"]: row for row in document["peers"]}


def test_every_peer_is_asked_through_the_overlay_and_beside_it(three):
    status, found = rows(three, three.lab.hosts[0], "-c", "3")
    assert status == 0
    assert set(found) == {"b", "c"}
    for name, host in zip("bc", three.lab.hosts[1:], strict=True):
        row = found[name]
        assert (row["public_ip"], row["overlay_address"]) == (host.address, f"10.5.{host.number}.0")
        assert row["largest"] == row["mtu"] == host.overlay_mtu
        for part in ("overlay", "host"):
            assert (row[part]["sent"], row[part]["received"], row[part]["error"]) == (3, 3, "")
            assert 0 < row[part]["rtt_min_s"] <= row[part]["rtt_avg_s"] <= row[part]["rtt_max_s"]


@pytest.mark.parametrize("word", ["b", "192.168.77.2", "10.5.2.0/24", "10.5.2.9"])
def test_a_peer_is_named_by_what_an_operator_has_at_hand(three, word):
    status, found = rows(three, three.lab.hosts[0], "-c", "1", word)
    assert (status, set(found)) == (0, {"b"})


def test_a_table_for_people(three):
    status, out, _ = ping(three, three.lab.hosts[0], "--all", "-c", "2")
    head, first, second, _, said = out.splitlines()
    assert status == 0
    assert head.split()[:5] == ["PEER", "PUBLIC-IP", "OVERLAY", "LOSS", "RTT"]
    assert head.split()[5:] == ["RTT-MAX", "LARGEST", "HOST-LOSS", "HOST-RTT"]
    assert [line.split()[0] for line in (first, second)] == ["b", "c"]
    assert first.split()[6] == "1472/1472"
    assert said == "2 of 2 peers answer everything, in every size"


def test_what_is_lost_through_the_overlay_alone_is_told_apart(three):
    a, b, _ = three.lab.hosts
    chain = f"chain in {{ type filter hook input priority -400; udp dport {PORT} drop; }}"
    b.namespace.run("nft", "-f", "-", text=f"table inet fault {{\n{chain}\n}}\n")
    try:
        status, found = rows(three, a, "-c", "2", "-W", "0.5")
        text = ping(three, a, "-c", "2", "-W", "0.5")[1]
    finally:
        b.namespace.run("nft", "delete", "table", "inet", "fault")
    assert status == 1
    assert (found["b"]["overlay"]["received"], found["b"]["host"]["received"], found["b"]["largest"]) == (0, 2, None)
    assert found["c"]["overlay"]["received"] == 2
    assert text.splitlines()[-1].startswith("1 of 2 peers lose packets")


def test_a_narrow_path_shows_as_the_largest_packet(make_overlay):
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    a.namespace.ip(f"route add {b.address}/32 dev eth0 mtu 1400")
    status, found = rows(overlay, a, "-c", "1")
    assert (status, found["b"]["largest"], found["b"]["mtu"]) == (1, 1372, 1472)


def test_progress_is_shown_on_a_terminal_and_nowhere_else(three):
    ours, theirs = pty.openpty()
    argv = three.lab.hosts[0].namespace.argv(command(three, three.lab.hosts[0], "-c", "1"))
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    assert b"1 of 2 peers asked" in os.read(ours, 4096)
    os.close(ours)
    assert ping(three, three.lab.hosts[0], "-c", "1")[2] == ""


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["nobody"], 2, "no peer 'nobody': expected a node's name, its public IP, or an address in its subnet"),
        (["-c", "0"], 2, "'0': expected 1 to 10000 requests"),
        (["-i", "x"], 2, "'x': expected 0.01 to 60 seconds"),
        (["--status-socket=/nowhere"], 3, "not running: nobody listens on /nowhere"),
    ],
)
def test_bad_words_are_named(three, words, status, said):
    found, out, err = ping(three, three.lab.hosts[0], *words)
    assert (found, out) == (status, "")
    assert said in err


def test_a_peer_that_joins_is_asked_as_soon_as_the_daemon_knows_it(make_overlay):
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    overlay.launch(a)
    overlay.await_ready(a)
    assert rows(overlay, a, "-c", "1", "-W", "0.3")[0] == 1
    overlay.launch(b)
    overlay.await_ready(b)
    until(lambda: rows(overlay, a, "-c", "1")[0] == 0, 20, "b does not answer")
