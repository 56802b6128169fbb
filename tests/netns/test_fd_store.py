"""A service manager keeps the queues: a kill and a restart cost a pause, not a packet."""

import json
import os
import signal
from pathlib import Path

import pytest
from probe import probing
from running import Log
from supervised import Supervised

from bench.lab.wait import until

PATIENCE_S = 20.0


@pytest.mark.parametrize("arguments", [(), ("--workers=2", "--source-ports=1")], ids=["on the loop", "two workers"])
def test_a_kill_and_a_restart_lose_nothing(make_overlay, arguments):
    overlay = make_overlay(start=False, arguments=arguments)
    a, b = overlay.lab.hosts
    daemon = Supervised(overlay, a)
    overlay.launch(b)
    overlay.await_ready(b)
    kept = daemon.stored
    with probing(a.pod, b.pod, b.pod_address) as there, probing(b.pod, a.pod, a.pod_address) as back:
        daemon.kill()
        daemon.restart()
        assert (there.lost(), back.lost()) == (0, 0)
    wanted = {"kept_by": "service manager", "inherited_age_s": None}
    until(lambda: overlay.status(a)["restart"] == wanted, PATIENCE_S, "not kept")
    until(lambda: daemon.stored == kept, PATIENCE_S, "not each once, or something was forgotten")


def test_a_reload_changes_the_main_process_and_loses_nothing(make_overlay):
    """As `systemctl reload` does it: a command that ends when the new daemon carries on."""
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    daemon = Supervised(overlay, a)
    overlay.launch(b)
    overlay.await_ready(b)
    before = daemon.pid
    with probing(a.pod, b.pod, b.pod_address) as probe:
        daemon.reload()
        until(lambda: not Path(f"/proc/{before}").exists(), PATIENCE_S, "the old daemon does not end")
        assert probe.lost() == 0
    assert (daemon.pid != before, daemon.starts) == (True, 1)
    daemon.kill()  # the manager looks after the new one
    assert daemon.starts == 2


def test_a_reload_that_fails_says_why_and_the_old_one_goes_on(make_overlay):
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    daemon = Supervised(overlay, a)
    overlay.launch(b)
    before = daemon.pid
    overlay.await_ready(b)
    assert "it has --source-check at its default, this one peer" in daemon.reload_in_vain("--source-check=peer")
    text = overlay.registry.read_text()
    overlay.registry.write_text("{")
    assert "subnets.json: not valid JSON" in daemon.reload_in_vain()
    overlay.registry.write_text(text)
    until((overlay.run_directory(a) / "subnet.sock").exists, PATIENCE_S, "it does not listen again")
    assert daemon.pid == before
    assert overlay.status(a)["routes"] == 1


def test_a_manager_without_room_keeps_nothing_and_status_says_so(make_overlay):
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    overlay.launch(b)
    daemon = Supervised(overlay, a, fds=3)  # room for some: as good as none
    assert overlay.status(a)["restart"]["kept_by"] == "device"
    daemon.kill()
    assert "the fds that the service manager kept" in daemon.process.stderr.read_text()
    overlay.await_ready(b)
    with probing(a.pod, b.pod, b.pod_address) as probe:
        assert probe.lost() == 0


def test_packets_move_by_the_last_routes_while_the_registry_is_away(make_overlay):
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    overlay.launch(b)
    daemon = Supervised(overlay, a)
    overlay.await_ready(b)
    document = overlay.registry.read_text()
    broken = json.loads(document) | {"Network": "none"}
    overlay.registry.write_text(json.dumps(broken))
    log = Log(daemon.process)
    before = daemon.starts
    os.kill(daemon.pid, signal.SIGKILL)
    until(lambda: daemon.starts > before + 1, PATIENCE_S, "it does not end for the broken file")
    assert log.lines("by the last routes"), "each of them moves packets until it knows that it cannot run"
    overlay.registry.write_text(document)
    log.shows("ready: subnet", PATIENCE_S)
    with probing(a.pod, b.pod, b.pod_address) as probe:
        assert probe.lost() == 0


def test_another_lease_means_another_start(make_overlay):
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    daemon = Supervised(overlay, a)
    overlay.launch(b)
    document = json.loads(overlay.registry.read_text())
    document["Nodes"][0]["Subnet"] = "10.5.77.0/24"
    overlay.registry.write_text(json.dumps(document))
    log = Log(daemon.process)
    os.kill(daemon.pid, signal.SIGKILL)
    log.shows("the network has changed (tun_address)", PATIENCE_S)
    log.shows("ready: subnet 10.5.77.0/24", PATIENCE_S)
    until(lambda: overlay.status(a)["restart"]["kept_by"] == "service manager", PATIENCE_S, "not kept")


def test_a_flannel0_that_was_deleted_meanwhile_is_made_again(make_overlay):
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    overlay.launch(b)
    daemon = Supervised(overlay, a)
    log = Log(daemon.process)
    a.namespace.ip("link delete flannel0")
    log.shows("flannel0 is back", PATIENCE_S)
    until(lambda: overlay.status(a)["restart"]["kept_by"] == "service manager", PATIENCE_S, "not kept again")
    before = daemon.pid
    os.kill(before, signal.SIGSTOP)
    a.namespace.ip("link delete flannel0")
    os.kill(before, signal.SIGKILL)
    log.shows("starting anew", PATIENCE_S)
    overlay.await_ready(b)
    overlay.await_ready(a)
    with probing(a.pod, b.pod, b.pod_address) as probe:
        assert probe.lost() == 0
    assert Path(f"/proc/{daemon.pid}").exists()


def test_a_flannel0_that_was_made_again_is_gone_on_with(make_overlay):
    """The manager keeps fds of one name beside each other, and the first of them would be the dead one."""
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    overlay.launch(b)
    overlay.await_ready(b)
    daemon = Supervised(overlay, a)
    kept, at_ns = daemon.stored, daemon.stored_at_ns
    log = Log(daemon.process)
    a.namespace.ip("link delete flannel0")
    log.shows("flannel0 is back", PATIENCE_S)
    # Until the manager is told, it keeps what it kept, by the same names.
    until(lambda: daemon.stored_at_ns != at_ns and daemon.stored == kept, PATIENCE_S, "not each once")
    with probing(a.pod, b.pod, b.pod_address) as probe:
        daemon.kill()
        assert probe.lost() == 0
    assert log.lines("that the service manager kept, by the last routes")


def test_a_reload_with_another_port_is_followed(make_overlay):
    """The successor has no use for the queues, and opens its own once the manager has let go of them, too."""
    overlay = make_overlay(start=False)
    a, _ = overlay.lab.hosts
    daemon = Supervised(overlay, a)
    document = json.loads(overlay.registry.read_text()) | {"Backend": {"Type": "udp", "Port": 9999}}
    overlay.registry.write_text(json.dumps(document))
    daemon.reload()
    assert overlay.status(a)["network"]["port"] == 9999
    assert daemon.starts == 1


@pytest.mark.parametrize(
    ("arguments", "reload"),
    [((), False), (("--replace", "--source-check=peer"), False), ((), True)],
    ids=["taken over", "replaced", "taken over after a reload"],
)
def test_a_daemon_beside_the_manager_takes_over_and_the_managers_own_starts_again(make_overlay, arguments, reload):
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    daemon = Supervised(overlay, a)
    overlay.launch(b)
    overlay.await_ready(b)
    if reload:
        daemon.reload()
    pid, log = daemon.pid, Log(daemon.process)
    beside = overlay.launch(a, *arguments)  # its log goes where that of the other one goes
    log.shows("this one waits to be stopped", PATIENCE_S)
    log.shows("ready: subnet", PATIENCE_S)
    log = Log(daemon.process)
    assert beside.stop() == 0
    log.shows("ready: subnet", PATIENCE_S)
    overlay.reinstate(a, daemon.process)
    until(lambda: overlay.status(a)["restart"]["kept_by"] == "service manager", PATIENCE_S, "not kept again")
    assert (daemon.starts, daemon.pid) == (1, pid)
    with probing(a.pod, b.pod, b.pod_address) as probe:
        assert probe.lost() == 0
