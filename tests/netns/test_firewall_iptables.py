"""The rules in iptables: listed to the letter, kept, replaced and removed; each test in a namespace of its own."""

import asyncio
import os
import shlex
from dataclasses import replace

import pytest
from firewall_facts import OTHER, fake, listed, only, others, require, saved, sh
from firewall_texts import FORWARD, FORWARD_JUMP, NAT, NAT_JUMP, PLAN, PLAN6, of_version_6
from inside import in_namespace

from udpbackend.errors import HostError
from udpbackend.host.firewall import Firewall, leftovers, remove

PROGRAMS = [f"{name}{suffix}" for name in ("iptables", "ip6tables") for suffix in ("", "-restore", "-save")]
NOBODY = 65534


@pytest.fixture(autouse=True)
def _programs():
    require("iptables", "nft")


def assert_in_place():
    assert listed("FLANNEL-POSTRTG") == NAT
    assert listed("POSTROUTING").splitlines().count(NAT_JUMP) == 1
    assert listed("FLANNEL-FWD", "filter") == FORWARD
    assert listed("FORWARD", "filter").splitlines().count(FORWARD_JUMP) == 1


@pytest.mark.parametrize("legacy", [False, True], ids=["nft", "legacy"])
@in_namespace
async def test_the_rules_are_flannels_beside_everybody_elses(tmp_path, legacy):
    require("iptables-legacy")
    only(tmp_path, *PROGRAMS, legacy=legacy)
    before, before6 = others(), others("ip6tables")
    firewall = Firewall(PLAN6, nftables=False)
    assert len(await firewall.apply()) == 8
    assert_in_place()
    assert listed("FLANNEL-POSTRTG", program="ip6tables") == of_version_6(NAT)
    assert listed("FLANNEL-FWD", "filter", "ip6tables") == of_version_6(FORWARD)
    for program in ("iptables", "ip6tables"):
        assert listed("POSTROUTING", program=program).splitlines()[-1] == NAT_JUMP
        assert listed("FORWARD", "filter", program).splitlines()[-1] == FORWARD_JUMP
    assert [line for line in saved() if "FLANNEL" not in line] == before
    assert len(saved()) == len(before) + 2 + 6 + 2 + 2, "two chains, their rules, two jumps"
    found = await leftovers()
    assert found == (
        "iptables table nat: chain FLANNEL-POSTRTG with 6 rules",
        "iptables table nat: jump from POSTROUTING to FLANNEL-POSTRTG",
        "iptables table filter: chain FLANNEL-FWD with 2 rules",
        "iptables table filter: jump from FORWARD to FLANNEL-FWD",
        "ip6tables table nat: chain FLANNEL-POSTRTG with 6 rules",
        "ip6tables table nat: jump from POSTROUTING to FLANNEL-POSTRTG",
        "ip6tables table filter: chain FLANNEL-FWD with 2 rules",
        "ip6tables table filter: jump from FORWARD to FLANNEL-FWD",
    )
    assert_in_place()
    assert await remove() == found
    assert (saved(), saved("ip6tables")) == (before, before6)
    assert await leftovers() == await remove() == ()


@in_namespace
async def test_what_is_as_it_should_be_is_not_written_again(tmp_path):
    others()
    await Firewall(PLAN6, nftables=False).apply()
    before = saved()
    for name in ("iptables-restore", "ip6tables-restore"):
        fake(tmp_path, name, "exit 9")
    firewall = Firewall(PLAN6, nftables=False)
    assert await firewall.apply() == await firewall.ensure() == ()
    await firewall.undo()
    assert saved() == before
    sh("iptables", "-t", "nat", "-F", "FLANNEL-POSTRTG")
    with pytest.raises(HostError, match=r"^cannot change the rules of iptables: `iptables-restore .* with status 9"):
        await firewall.ensure()


NOT_IN_ORDER = "table nat: chain FLANNEL-POSTRTG does not hold its 6 rules in their order"
LAST_RULE = NAT.splitlines()[-1].partition(" FLANNEL-POSTRTG ")[2]
DAMAGE = {
    "a rule is deleted": ("-t nat -D FLANNEL-POSTRTG 2", NOT_IN_ORDER),
    "the chain is flushed": ("-t nat -F FLANNEL-POSTRTG", NOT_IN_ORDER),
    "a rule is added": ("-t nat -A FLANNEL-POSTRTG -j ACCEPT", NOT_IN_ORDER),
    "the order is changed": (
        f"-t nat -D FLANNEL-POSTRTG 6; -t nat -I FLANNEL-POSTRTG 5 {LAST_RULE}",
        NOT_IN_ORDER,
    ),
    "the jump is doubled": (
        "-t nat " + NAT_JUMP.replace("-A", "-I"),
        "table nat: 2 jumps from POSTROUTING to FLANNEL-POSTRTG",
    ),
    "the jump is deleted": (
        "-t nat " + NAT_JUMP.replace("-A", "-D"),
        "table nat: no jumps from POSTROUTING to FLANNEL-POSTRTG",
    ),
    "everything is flushed": ("-F; -X", "table filter: no chain FLANNEL-FWD"),
    "a jump of another form": (
        "-A FORWARD -s 10.5.0.0/16 -j FLANNEL-FWD",
        "table filter: rule `-A FORWARD -s 10.5.0.0",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
@in_namespace
async def test_damage_is_repaired(damage):
    commands, words = DAMAGE[damage]
    others()
    firewall = Firewall(PLAN, nftables=False)
    await firewall.apply()
    before = saved()
    for command in commands.split("; "):
        sh("iptables", *shlex.split(command))
    assert saved() != before
    repaired = await firewall.ensure()
    assert repaired[0].startswith(f"iptables {words}")
    assert await firewall.ensure() == ()
    assert_in_place()
    if damage != "everything is flushed":  # which took other programs' rules along
        assert sorted(saved()) == sorted(before)


@in_namespace
async def test_of_another_network_and_an_older_flannel_nothing_stays():
    before = others()
    await Firewall(OTHER, nftables=False).apply()
    assert any("10.44." in line for line in saved())
    for table, parent, comment, rule in (
        ("nat", "POSTROUTING", "flanneld masq", "-s 10.44.0.0/16 -d 10.44.0.0/16 -j RETURN"),
        ("nat", "POSTROUTING", "flanneld masq", "-s 10.44.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully"),
        ("nat", "POSTROUTING", "flanneld masq", "! -s 10.44.0.0/16 -d 10.44.9.0/24 -j RETURN"),
        ("filter", "FORWARD", "flanneld forward", "-s 10.44.0.0/16 -j ACCEPT"),
        ("filter", "FORWARD", "flanneld forward", "-d 10.44.0.0/16 -j ACCEPT"),
    ):
        sh("iptables", "-t", table, "-I", parent, "-m", "comment", "--comment", comment, *rule.split())
    done = await Firewall(PLAN, nftables=False).apply()
    assert len(done) == 7
    stray = '-A POSTROUTING ! -s 10.44.0.0/16 -d 10.44.9.0/24 -m comment --comment "flanneld masq" -j RETURN'
    assert done[1] == f"iptables table nat: rule `{stray}`"
    assert "10.44." not in "\n".join(saved())
    assert_in_place()
    await remove()
    assert saved() == before


@in_namespace
async def test_what_is_no_longer_wanted_goes():
    before, before6 = others(), others("ip6tables")
    await Firewall(PLAN6, nftables=False).apply()
    await Firewall(replace(PLAN, forward=False), nftables=False).apply()
    assert saved("ip6tables") == before6
    assert "FLANNEL-FWD" not in "\n".join(saved())
    assert listed("FLANNEL-POSTRTG") == NAT
    nothing = Firewall(replace(PLAN, forward=False, masquerade=False), nftables=False)
    assert len(await nothing.apply()) == 2
    assert await nothing.ensure() == ()
    assert saved() == before


@pytest.mark.parametrize("earlier", [None, OTHER], ids=["fresh", "after another plan"])
@in_namespace
async def test_a_failed_start_leaves_what_was_there(earlier):
    others()
    if earlier:
        await Firewall(earlier, nftables=False).apply()
    before = saved()
    firewall = Firewall(PLAN, nftables=False)
    await firewall.apply()
    assert saved() != before
    await firewall.undo()
    assert saved() == before
    await firewall.undo()
    assert saved() == before


@in_namespace
async def test_a_program_that_is_missing_is_named(tmp_path):
    only(tmp_path, "nft")
    with pytest.raises(HostError, match="need the program iptables, which is not on PATH: Debian's package iptables"):
        await Firewall(PLAN, nftables=False).apply()
    assert await Firewall(replace(PLAN, forward=False, masquerade=False), nftables=False).apply() == ()
    assert await leftovers() == await remove() == ()


@in_namespace
async def test_the_missing_capability_is_named():
    firewall = Firewall(PLAN, nftables=False)
    await asyncio.to_thread(str)  # nobody may not load what a thread needs
    os.setuid(NOBODY)
    with pytest.raises(HostError, match="the capabilities NET_ADMIN and NET_RAW are needed"):
        await firewall.apply()
