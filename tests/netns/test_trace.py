"""`udp-backend trace`: the way of packets that arrive, and where those end that do not."""

import json
import subprocess

import pytest

from bench.lab.daemon import HEALTHZ_PORT, PORT, program


@pytest.fixture(scope="module")
def three(overlay_of_three):
    return overlay_of_three


def trace(overlay, *words, host=0):
    """Exit status, standard output and standard error."""
    at = overlay.lab.hosts[host]
    argv = [program(), "trace", f"--subnet-file={overlay.run_directory(at) / 'subnet.env'}", "-W", "0.5", *words]
    done = subprocess.run(at.namespace.argv(argv), capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def found(overlay, *words, host=0):
    status, out, err = trace(overlay, "-o", "json", *words, host=host)
    assert err == ""
    document = json.loads(out)
    assert document["schema"] == 1
    assert status == int(not document["arrives"])
    return document


def whats(document):
    return [step["what"] for step in document["steps"]]


def test_a_packet_to_another_nodes_pod_is_followed_and_seen_at_every_counter(three):
    b = three.lab.hosts[1]
    document = found(three, b.pod_address, f"--peer-port={HEALTHZ_PORT}", "-W", "5")
    assert document["arrives"]
    owner, route, outer, size, _ = document["steps"]
    assert owner["what"].startswith(f"{b.pod_address} is in {b.subnet}, the subnet of b ({b.address}), ")
    assert owner["source"].startswith("registry static, view ")
    assert (route["what"], route["source"]) == ("the kernel sends it by flannel0", "route 10.5.0.0/16, protocol boot")
    assert outer["what"] == f"its datagram goes to {b.address} port {PORT} by eth0"
    assert size["what"] == "packets of up to 1472 bytes pass whole"
    counters = dict(document["packet"]["counters"])
    assert set(counters) == {"tx_received", "tx to the peer", "rx from the peer", "rx_delivered"}
    assert all(value >= 1 for value in counters.values())
    assert all(value >= 1 for _, value in document["packet"]["there"])
    assert len(document["packet"]["there"]) == 3
    assert document["packet"]["rtt_s"] > 0


def test_a_pods_packet_is_forwarded_by_the_same_way(three):
    a, b = three.lab.hosts[:2]
    document = found(three, b.pod_address, f"--from={a.pod_address}", "--dry")
    assert document["arrives"]
    assert document["packet"] is None
    assert document["steps"][1]["what"] == "the kernel sends it by flannel0"
    assert "its source stays as it is" in document["steps"][-1]["what"]


def test_a_pod_of_this_node_needs_no_tunnel(three):
    document = found(three, three.lab.hosts[0].pod_address, "-W", "5")
    assert document["arrives"]
    assert "this node's own subnet" in whats(document)[0]
    assert whats(document)[1] == "the kernel sends it by cni0"
    assert document["packet"]["counters"] == []


def test_an_address_of_the_overlay_that_nobody_owns_ends_there(three):
    document = found(three, "10.5.77.1")
    assert not document["arrives"]
    assert document["verdict"] == (
        "a packet to 10.5.77.1 does not arrive: "
        "10.5.77.1 is in the overlay's network 10.5.0.0/16, but no node has a subnet with it"
    )


def test_an_address_outside_is_followed_as_far_as_the_kernel_knows(three):
    b = three.lab.hosts[1]
    assert whats(found(three, b.address, "-W", "5"))[:2] == [
        f"{b.address} is outside the overlay",
        "the kernel sends it by eth0",
    ]
    document = found(three, "198.51.100.1")
    assert document["verdict"].startswith("a packet to 198.51.100.1 does not arrive: the kernel has no way")


def test_somebody_elses_route_is_named(three):
    a, b = three.lab.hosts[:2]
    a.namespace.ip(f"route add {b.subnet} via 192.168.77.3 proto static")
    try:
        document = found(three, b.pod_address, "--dry")
    finally:
        a.namespace.ip(f"route del {b.subnet}")
    assert "the kernel sends it by eth0 via 192.168.77.3, not by flannel0" in document["verdict"]
    assert document["steps"][1]["source"] == f"route {b.subnet}, protocol static"


def test_what_leaves_and_gets_no_answer_is_told_from_what_never_left(three):
    a, b = three.lab.hosts[:2]
    chain = f"chain in {{ type filter hook input priority -400; udp dport {PORT} drop; }}"
    b.namespace.run("nft", "-f", "-", text=f"table inet fault {{\n{chain}\n}}\n")
    try:
        assert "it left this host and the peer sent nothing" in found(three, b.pod_address)["verdict"]
    finally:
        b.namespace.run("nft", "delete", "table", "inet", "fault")
    chain = "chain out { type filter hook output priority -400; oifname flannel0 drop; }"
    a.namespace.run("nft", "-f", "-", text=f"table inet fault {{\n{chain}\n}}\n")
    try:
        verdict = found(three, b.pod_address)["verdict"]
    finally:
        a.namespace.run("nft", "delete", "table", "inet", "fault")
    assert "could not be sent" in verdict or "it did not reach the daemon" in verdict


def test_steps_for_people_end_with_a_sentence(three):
    b = three.lab.hosts[1]
    status, out, _ = trace(three, b.pod_address, "-W", "5")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith("1. ")
    assert lines[1].startswith("   known from: registry static")
    assert "SEEN-AT" in out
    assert lines[-1].startswith(f"a packet to {b.pod_address} arrives, and its answer came back after ")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["pod"], 2, "'pod': expected an IP address"),
        (["10.5.2.2", "--peer-port=0"], 2, "'0': expected a port, 1 to 65535"),
        ([], 2, "IP"),
        (["10.5.2.2", "--status-socket=/nowhere"], 3, "not running: nobody listens on /nowhere"),
    ],
)
def test_bad_words_are_named(three, words, status, said):
    code, out, err = trace(three, *words)
    assert (code, out) == (status, "")
    assert said in err
