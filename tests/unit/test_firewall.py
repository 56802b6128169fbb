"""The turn of whoever changes rules, the programs' failures, and flannel's check of the bridge."""

import asyncio
import threading
import time

import pytest

from udpbackend.errors import HostError
from udpbackend.host import firewall_program, nftables
from udpbackend.host.firewall import Firewall, bridge_problem
from udpbackend.host.firewall_rules import FirewallPlan
from udpbackend.host.nftables import transaction
from udpbackend.model import Prefix

PLAN = FirewallPlan(Prefix.parse("10.5.0.0/16"), Prefix.parse("10.5.3.0/24"))
TABLE, TABLE6 = "ip flannel-ipv4", "ip6 flannel-ipv6"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes a program of a name, and PATH nothing but those."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return make


async def test_the_loop_turns_meanwhile_and_whoever_is_cancelled_waits_for_the_end():
    started, gate, done = threading.Event(), threading.Event(), []

    def slow():
        started.set()
        gate.wait(10)
        done.append("first")
        raise HostError("nobody is left to hear this")

    firewall = Firewall(PLAN, nftables=True)
    first = asyncio.create_task(firewall._alone(slow))
    second = asyncio.create_task(firewall._alone(lambda: done.append("second")))
    assert await asyncio.to_thread(started.wait, 10)
    first.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert (first.done(), done) == (False, [])
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert done == ["first", "second"]


def test_a_program_that_does_not_end_is_stopped(program, monkeypatch):
    monkeypatch.setattr(firewall_program, "LIMIT_S", 0.2)
    program("nft", "exec /bin/sleep 60")
    began = time.monotonic()
    with pytest.raises(HostError, match=r"^`nft list` has not ended within 0.2 s$"):
        firewall_program.run("nft", "list")
    assert time.monotonic() - began < 10


def test_a_program_that_cannot_run_is_told(program, tmp_path):
    program("nft", "")
    (tmp_path / "nft").chmod(0o644)
    with pytest.raises(HostError, match=r"^cannot run nft: Permission denied$"):
        firewall_program.run("nft", "list")
    with pytest.raises(HostError, match=r"^cannot run iptables: No such file or directory$"):
        firewall_program.run("iptables")


def test_a_failure_is_one_line_with_its_reason(program):
    program("nft", "echo Error: this; echo '   and that' >&2; exit 3")
    assert str(firewall_program.run("nft", "-f", "-").failure("change it")) == (
        "cannot change it: `nft -f -` ended with status 3: and that"
    )
    program("nft", "exit 1")
    assert str(firewall_program.run("nft").failure("look")) == (
        "cannot look: `nft` ended with status 1: it says nothing"
    )


def test_programs_speak_english(program, monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    program("nft", "echo $LC_ALL")
    assert firewall_program.run("nft").out == "C\n"


def test_one_transaction_for_all_tables():
    new = ("table ip flannel-ipv4 {", "}")
    assert transaction({TABLE: ("old",), TABLE6: ("old",)}, {TABLE: new, TABLE6: ()}) == (
        "delete table ip flannel-ipv4\ntable ip flannel-ipv4 {\n}\ndelete table ip6 flannel-ipv6\n"
    )
    assert transaction({TABLE: (), TABLE6: ()}, {TABLE: new}) == "table ip flannel-ipv4 {\n}\n"


def test_what_nft_prints_after_our_change_is_believed_only_if_it_can_be_ours(monkeypatch):
    """Another program that adds a rule between our change and our look must not be taken for a way of printing."""
    wanted, printed = ("table {", "rule", "}"), ("table {", "RULE", "}")
    shown = []
    monkeypatch.setattr(nftables, "_list", lambda _: shown.pop(0))
    monkeypatch.setattr(firewall_program, "installed", lambda _: True)
    monkeypatch.setattr(firewall_program, "run", lambda *_, **__: firewall_program.Ended("nft", 0, "", ""))
    holder = nftables.Nftables()
    shown[:] = [(), (*printed, "more")]
    assert holder.settle({TABLE: wanted}) == ("nftables: no table ip flannel-ipv4",)
    shown[:] = [(*printed, "more"), printed]
    assert len(holder.settle({TABLE: wanted})) == 1
    shown[:] = [printed]
    assert holder.settle({TABLE: wanted}) == ()
    shown[:] = [()]
    assert holder.look({TABLE: wanted}) == ("nftables: no table ip flannel-ipv4",)


def test_the_check_of_the_bridge(tmp_path):
    assert bridge_problem(ipv6=False, folder=tmp_path) == (
        f"Failed to check br_netfilter: stat {tmp_path}/bridge-nf-call-iptables: no such file or directory; "
        "`modprobe br_netfilter` loads the module"
    )
    (tmp_path / "bridge-nf-call-iptables").write_text("1\n")
    assert bridge_problem(ipv6=False, folder=tmp_path) is None
    assert "bridge-nf-call-ip6tables" in bridge_problem(ipv6=True, folder=tmp_path)
    (tmp_path / "bridge-nf-call-ip6tables").write_text("1\n")
    assert bridge_problem(ipv6=True, folder=tmp_path) is None
