"""Rules of other programs in the way of the overlay's packets, and programs that keep us from our own."""

import fcntl
import json
import re
import signal
from contextlib import contextmanager

import pytest
from doctored import examine
from firewall_facts import require
from running import Log, becomes

from bench.lab import traffic
from bench.lab.daemon import Overlay
from bench.lab.topology import NETWORK, Lab
from bench.lab.wait import until
from udpbackend.host.lasting import OFTEN

REJECT = "-A FORWARD -j REJECT --reject-with icmp-host-prohibited"
JUMP = '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD'
NOTICED_S = 60.0
"""Other programs' rules are looked at every 15 seconds."""
NFT_DROP = "table inet mine { chain forward { type filter hook forward priority filter; policy drop; }; }"


@pytest.fixture
def lab(able):
    require("iptables", "iptables-legacy", "nft")
    with Lab() as made:
        yield made


def forward(host):
    return host.namespace.run("iptables", "-S", "FORWARD").splitlines()[1:]


def passes(here, there):
    """Whether a pod's ping is answered, and the other pod's."""
    pairs = ((here.pod, there.pod_address), (there.pod, here.pod_address))
    return [bool(traffic.ping(pod, target, count=1).received) for pod, target in pairs] == [True, True]


def legacy(tmp_path, monkeypatch):
    """From now on the daemons' iptables is the older one; the file that it locks."""
    for name in ("iptables", "ip6tables"):
        for suffix in ("", "-restore", "-save"):
            (tmp_path / f"{name}{suffix}").symlink_to(f"/usr/sbin/{name}-legacy{suffix}")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    return tmp_path / "lock"


@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.parametrize("left", ["nothing", "the version before"])
def test_our_rules_are_met_where_a_rule_rejects_everything(lab, tmp_path, monkeypatch, kind, left):
    """As images of clouds come: on the version before all pods of other nodes were lost, and status said ready."""
    if kind == "legacy":
        legacy(tmp_path, monkeypatch)
    a, b = lab.hosts
    docker = "-A FORWARD -i docker0 -o docker0 -j ACCEPT"
    own = "-A FORWARD -s 10.5.0.0/16 -d 192.168.1.0/24 -j DROP"
    lines = [docker, own, REJECT]
    if left != "nothing":
        lines += ["-N FLANNEL-FWD", f"-A FLANNEL-FWD -s {NETWORK} -j ACCEPT", JUMP.replace('"', "'")]
    for line in lines:
        a.namespace.run("sh", "-c", f"iptables {line}")
    with Overlay(lab) as overlay:
        overlay.start_all()
        assert forward(a) == [docker, own, JUMP, REJECT], "behind what ends no packet of ours, or is meant to"
        assert passes(a, b)
        becomes(overlay, a, "ready", NOTICED_S)
        examine(overlay, a).nothing()
        overlay.stop_all()


def commands(cure):
    """The two commands of a cure, as somebody reads them who is to type them."""
    [command] = re.findall(r"(iptables -I [^,]* ACCEPT|nft insert rule [^,]* accept)", cure)
    return command, command.replace(" -s ", " -d ").replace(" saddr ", " daddr ")


@pytest.mark.parametrize("nftables", [False, True], ids=["iptables", "nftables"])
def test_what_ends_our_packets_is_told_and_the_cure_helps(lab, nftables):
    a, b = lab.hosts
    with Overlay(lab) as overlay:
        document = json.loads(overlay.registry.read_text())
        overlay.registry.write_text(json.dumps(document | {"EnableNFTables": nftables}))
        overlay.start_all()
        assert passes(a, b)
        log = Log(overlay.process(a))
        if nftables:
            a.namespace.run("nft", NFT_DROP)
            words = f"the policy drop of nftables' chain inet mine forward ends packets of {NETWORK}"
        else:
            a.namespace.run("iptables", *REJECT.replace("-A FORWARD", "-I FORWARD 1").split())
            words = f"rule `{REJECT}` of iptables' chain FORWARD ends packets of {NETWORK}"
        assert not passes(a, b)
        becomes(overlay, a, "degraded", NOTICED_S, f"firewall: {words}")
        finding = examine(overlay, a).findings["firewall"]
        assert (finding["severity"], finding["evidence"].startswith(words)) == ("down", True)
        for command in commands(finding["cure"]):
            a.namespace.run(*command.split())
        assert passes(a, b)
        assert "firewall" not in examine(overlay, a).findings
        becomes(overlay, a, "ready", NOTICED_S)
        assert len(log.lines("ends packets")) == 1, "told once"
        if not nftables:
            a.namespace.run("iptables", "-F", "FORWARD")
            a.namespace.run("iptables", *REJECT.split())
            until(lambda: forward(a) == [JUMP, REJECT], NOTICED_S, "a flushed jump comes back where it is met")
            assert passes(a, b)
        overlay.stop_all()


def test_rules_that_somebody_keeps_taking_away_are_told(lab):
    """On the version before both fought for ever, and status said ready."""
    a = lab.hosts[0]
    with Overlay(lab, "--iptables-resync=1") as overlay:
        overlay.launch(a)
        overlay.await_ready(a)
        log = Log(overlay.process(a))

        def told():
            a.namespace.run("iptables", "-F", "FORWARD")
            return "repairs do not last" in overlay.status(a)["verdict"]["text"]

        until(told, NOTICED_S, "not told")
        words = "something undoes them: iptables table filter: no jumps from FORWARD to FLANNEL-FWD"
        becomes(overlay, a, "degraded", 5, words)
        assert log.lines("repairs do not last")
        assert len(log.lines("repaired the rules")) < OFTEN, "and the log is not filled"
        overlay.stop_all()


@contextmanager
def locked(path):
    """As another program locks ip_tables."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_lock_of_another_program_is_waited_for(lab, tmp_path, monkeypatch):
    path = legacy(tmp_path, monkeypatch)
    a, b = lab.hosts
    with Overlay(lab, "--ip-masq") as overlay:
        with locked(path):
            overlay.launch(a)
            waiting = overlay.process(a)
            until(lambda: "waiting for another program" in waiting.stderr.read_text(), 30, "it does not say so")
            text = becomes(overlay, a, "starting", 5)
            assert "waiting for the host's rules" in text
            stopped = overlay.launch(b)
            until(lambda: "waiting for another program" in stopped.stderr.read_text(), 30, "it does not say so")
            stopped.send(signal.SIGTERM)
            assert stopped.wait(20) == 0
        overlay.await_ready(a)
        assert waiting.stderr.read_text().count("waiting for another program") == 1
        assert JUMP in forward(a)
        overlay.launch(b)
        overlay.await_ready(b)
        assert passes(a, b)
        overlay.stop_all()
