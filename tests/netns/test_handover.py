"""A running daemon hands its queues to the next one: no packet is lost, whichever of the two dies on the way."""

import json
import os
import shlex
import signal
import socket
import struct
from pathlib import Path

import pytest
from middleman import Middleman
from probe import probing
from running import Log, counter

from bench.lab import traffic
from bench.lab.daemon import program
from bench.lab.wait import until

PATIENCE_S = 20.0
STANDS_BY = "standing by until it has started"
WAITS = "this one waits to be stopped"
FAILED = "the handover to udp-backend"


def hand_over(overlay, host, *arguments):
    """Starts a successor and waits until it carries on alone; the daemon before it, and it."""
    before = overlay.process(host)
    log = Log(before)
    after = overlay.launch(host, *arguments)
    log.shows(WAITS, PATIENCE_S)
    overlay.await_ready(host)
    return before, after


@pytest.mark.parametrize(
    "arguments", [(), ("--workers=2", "--source-ports=2")], ids=["on the loop", "two workers, two source ports"]
)
def test_no_packet_is_lost_and_counters_go_on(make_overlay, arguments):
    overlay = make_overlay(arguments=arguments)
    a, b = overlay.lab.hosts
    with probing(a.pod, b.pod, b.pod_address) as there, probing(b.pod, a.pod, a.pod_address) as back:
        for _ in range(3):
            before, _ = hand_over(overlay, a)
            assert before.stop() == 0
        assert (there.lost(), back.lost()) == (0, 0)
    law = overlay.settle(a)["law"]
    assert law["tx"]["received"] >= there.sent
    assert law["rx"]["received"] >= back.sent
    [peer] = overlay.status(a)["peers"]
    assert peer["tx_packets"] >= there.sent
    assert peer["silent_s"] is not None


def test_all_is_loaded_before_the_queues_change_hands(make_overlay):
    """Whatever is loaded afterwards shares the core with packets that are the new one's."""
    overlay = make_overlay()
    a, _ = overlay.lab.hosts
    old, offered = overlay.process(a), overlay.run_directory(a) / "offered.sock"
    loaded: list[bool] = []

    def said(_):
        loaded.extend("uvloop" in Path(f"/proc/{it.pid}/maps").read_text() for it in (old, overlay.process(a)))
        overlay.process(a).send(signal.SIGKILL)
        return True

    between = Middleman(a.namespace, overlay.run_directory(a) / "subnet.sock", offered, said)
    overlay.launch(a, f"--status-socket={offered}")
    between.join()
    assert (between.words, loaded) == (["state"], [True, True])
    overlay.reinstate(a, old)


def test_ipv6_goes_on_too(make_overlay):
    overlay = make_overlay(ipv6=True)
    a, _ = overlay.lab.hosts
    before, _ = hand_over(overlay, a)
    before.stop()
    assert a.pod.run("ping", "-c1", "-W5", overlay.lab.hosts[1].pod_address6)


def test_the_old_one_goes_on_when_the_new_one_dies_before_it_is_ready(make_overlay):
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    old, log = overlay.process(a), Log(overlay.process(a))
    with probing(a.pod, b.pod, b.pod_address) as probe:
        new = overlay.launch(a)
        log.shows(STANDS_BY, PATIENCE_S)
        new.send(signal.SIGKILL)
        log.shows(FAILED, PATIENCE_S)
        probe.flows(PATIENCE_S)
        assert probe.lost() == 0
    overlay.reinstate(a, old)
    overlay.await_ready(a)


def test_the_new_one_goes_on_when_the_old_one_dies_while_it_stands_by(make_overlay):
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    old, log = overlay.process(a), Log(overlay.process(a))
    with probing(a.pod, b.pod, b.pod_address) as probe:
        overlay.launch(a)
        log.shows(STANDS_BY, PATIENCE_S)
        old.send(signal.SIGKILL)
        overlay.await_ready(a)
        assert probe.lost() == 0


def test_the_old_one_starts_again_when_the_new_one_ends(make_overlay):
    """As a rollout that is undone: nobody has told the old one to stop."""
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    old, new = hand_over(overlay, a)
    log = Log(old)
    assert new.stop() == 0
    log.shows("ready: subnet", PATIENCE_S)
    overlay.reinstate(a, old)
    overlay.await_ready(a)
    with probing(a.pod, b.pod, b.pod_address) as probe:
        assert probe.lost() == 0
    assert "Traceback" not in old.stderr.read_text()


def test_other_settings_are_refused_and_change_nothing(make_overlay):
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    old = overlay.process(a)
    with probing(a.pod, b.pod, b.pod_address) as probe:
        new = overlay.launch(a, "--source-check=peer")
        assert new.wait(PATIENCE_S) == 1
        assert "it has --source-check at its default, this one peer; stop it, add --replace" in new.tail()
        assert probe.lost() == 0
    overlay.reinstate(a, old)


def test_other_settings_replace_the_old_one_when_they_are_told_to(make_overlay):
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    old, _ = hand_over(overlay, a, "--source-check=peer", "--replace")
    assert overlay.status(a)["network"]["source_check"] == "peer"
    with probing(a.pod, b.pod, b.pod_address) as probe:
        assert probe.lost() == 0
    assert old.stop() == 0


def test_one_that_waits_for_its_registry_is_replaced_as_well(make_overlay):
    """It moves nothing yet: an operator who gave it a wrong address need not look for its process first."""
    overlay = make_overlay(start=False)
    a, _ = overlay.lab.hosts
    old = overlay.launch(a, "--static-subnets=", "--etcd-endpoints=http://127.0.0.1:1")
    Log(old).shows("Couldn't fetch network config", PATIENCE_S)
    refused = overlay.launch(a)
    assert refused.wait(PATIENCE_S) == 1
    assert "it is still starting; stop it, add --replace" in refused.tail()
    new = overlay.launch(a, "--replace")
    overlay.await_ready(a)
    assert "it is still starting" in new.stderr.read_text()
    assert old.stop() == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"Backend": {"Type": "udp", "Port": 9999}}, "(port)"), ({"Backend": {"Type": "udp", "MTU": 1400}}, "")],
    ids=["another port", "another MTU"],
)
def test_a_changed_network_is_followed(make_overlay, changes, told):
    """The settings are the same, what they lead to is not: only the successor knows when it has asked the registry."""
    overlay = make_overlay()
    a, _ = overlay.lab.hosts
    document = json.loads(overlay.registry.read_text()) | changes
    overlay.registry.write_text(json.dumps(document))
    old, new = hand_over(overlay, a)
    found = overlay.status(a)
    assert found["network"]["port"] == changes["Backend"].get("Port", found["network"]["port"])
    assert found["interface"]["overlay_mtu"] == changes["Backend"].get("MTU", 1472)
    assert (f"the network has changed {told}" in new.stderr.read_text()) is bool(told)
    assert old.stop() == 0


def test_another_backend_is_followed(make_overlay):
    """No queue is needed any more, and none stays open."""
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    document = json.loads(overlay.registry.read_text()) | {"Backend": {"Type": "host-gw"}}
    overlay.registry.write_text(json.dumps(document))
    old, _ = hand_over(overlay, a)
    old.stop()
    old, _ = hand_over(overlay, b)
    old.stop()
    with probing(a.pod, b.pod, b.pod_address) as probe:
        hand_over(overlay, a)  # the kernel moves the packets: nothing to hand over, and nothing lost
        assert probe.lost() == 0


def test_the_path_mtu_to_a_peer_is_still_known(make_overlay):
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    a.namespace.ip(f"route add {b.address}/32 dev eth0 mtu 1400")
    a.pod.run("ping", "-c1", "-W1", "-s1400", "-Mdont", b.pod_address, check=False)
    before = overlay.status(a)["peers"][0]["path_mtu"]
    learned = counter(overlay, a, "tx_path_mtu_learned")
    hand_over(overlay, a)
    assert before == overlay.status(a)["peers"][0]["path_mtu"] == 1400
    assert counter(overlay, a, "tx_path_mtu_learned") == learned


def test_who_reads_what_reload_writes_does_not_wait_for_the_new_daemon(make_overlay, tmp_path):
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    argv, old = overlay.process(a).argv, overlay.process(a)
    flags = shlex.join(argv[argv.index(program()) + 1 :])
    a.namespace.run("sh", "-c", f"{program()} reload {flags} 2>{tmp_path / 'log'} </dev/null")
    new = answering(overlay.run_directory(a) / "subnet.sock")
    try:
        assert old.wait(PATIENCE_S) == 0
        assert new != old.pid
        assert traffic.ping(b.pod, a.pod_address).received
    finally:
        os.kill(new, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{new}").exists(), PATIENCE_S, "it does not end")
    overlay.launch(a)
    overlay.await_ready(a)


def answering(path):
    """The process that answers on a status socket."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(path))
        return struct.unpack("3i", asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
