"""The daemon and the host's rules: written with its start, kept while it runs, gone with a start that fails."""

import json
import time

import pytest
from refusal import refusal

from bench.lab.daemon import Overlay
from bench.lab.topology import Lab
from bench.lab.wait import until

REPAIR_S = 10.0
MASQUERADE = '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG'
FORWARD = '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD'


@pytest.fixture
def lab(able):
    with Lab() as made:
        yield made


def rules(host, table):
    return host.namespace.run("iptables", "-t", table, "-S").splitlines()


def routes(host):
    return host.namespace.run("ip", "route")


def subnet_file(overlay, host):
    return (overlay.run_directory(host) / "subnet.env").read_text()


def test_forward_rules_by_default_and_no_masquerading(lab):
    with Overlay(lab) as overlay:
        overlay.start_all()
        for host in lab.hosts:
            assert FORWARD in rules(host, "filter")
            assert MASQUERADE not in rules(host, "nat")
            assert "FLANNEL_IPMASQ=false" in subnet_file(overlay, host)


def test_masquerading_and_a_blackhole_are_kept_and_outlive_the_daemon(lab):
    host = lab.hosts[0]
    blackhole = f"blackhole {host.subnet}"
    with Overlay(lab, "--ip-masq", "--ip-blackhole-route", "--iptables-resync=1") as overlay:
        overlay.start_all()
        assert MASQUERADE in rules(host, "nat")
        assert blackhole in routes(host)
        assert "FLANNEL_IPMASQ=true" in subnet_file(overlay, host)
        host.namespace.run("iptables", "-t", "nat", "-F", "POSTROUTING")
        host.namespace.run("ip", "route", "del", "blackhole", host.subnet)
        until(lambda: MASQUERADE in rules(host, "nat") and blackhole in routes(host), REPAIR_S, "not repaired")
        overlay.stop_all()
    assert MASQUERADE in rules(host, "nat")
    assert blackhole in routes(host)


def test_the_rules_are_looked_at_as_often_as_asked(lab):
    """Five repairs take 5 s and a little; at the default of 5 s they would take 20 s at least."""
    host = lab.hosts[0]
    with Overlay(lab, "--ip-masq", "--iptables-resync=1") as overlay:
        overlay.launch(host)
        overlay.await_ready(host)
        end = time.monotonic() + 18
        for _ in range(5):
            host.namespace.run("iptables", "-t", "nat", "-F", "POSTROUTING")
            until(lambda: MASQUERADE in rules(host, "nat"), end - time.monotonic(), "not repaired")


def test_without_random_ports_and_without_forward_rules(lab):
    host = lab.hosts[0]
    with Overlay(lab, "--ip-masq", "--ip-masq-fully-random-disable", "--iptables-forward-rules=false") as overlay:
        overlay.launch(host)
        overlay.await_ready(host)
        masquerading = [rule for rule in rules(host, "nat") if "-j MASQUERADE" in rule]
        assert len(masquerading) == 2
        assert not [rule for rule in masquerading if "--random-fully" in rule]
        assert not [rule for rule in rules(host, "filter") if "FLANNEL" in rule]


def test_nftables_where_the_network_asks_for_it(lab):
    host = lab.hosts[0]
    with Overlay(lab, "--ip-masq") as overlay:
        document = json.loads(overlay.registry.read_text())
        overlay.registry.write_text(json.dumps(document | {"EnableNFTables": True}))
        overlay.start_all()
        listed = host.namespace.run("nft", "list", "table", "ip", "flannel-ipv4")
        assert "masquerade" in listed
        assert not [rule for rule in rules(host, "nat") if "FLANNEL" in rule]


def test_without_the_program_masquerading_is_refused_and_forwarding_is_not(lab, monkeypatch):
    host = lab.hosts[0]
    with Overlay(lab) as overlay:
        said = refusal(overlay, host, "env", "PATH=/nonexistent", extra=("--ip-masq",), static_subnets=overlay.registry)
        assert "iptables" in said
        monkeypatch.setenv("PATH", "/usr/bin:/bin")  # without /usr/sbin
        overlay.launch(host)
        overlay.await_ready(host)
        assert "Debian's package iptables" in overlay.process(host).tail()
