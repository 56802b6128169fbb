"""Two networks on one host: daemons of ours beside each other, and beside the rules that flanneld writes."""

import asyncio
import shlex
from dataclasses import replace

import pytest
from firewall_facts import OTHER, listed, only, others, require, ruleset, saved, sh
from firewall_texts import FORWARD_JUMP, NAT, NAT_JUMP, NETWORK, PLAN
from inside import in_namespace
from test_firewall_nftables import FLANNELS, TABLE, table

from udpbackend.host.firewall import Firewall, remove
from udpbackend.host.firewall_shared import keep_others
from udpbackend.model import Prefix

PROGRAMS = [f"{name}{suffix}" for name in ("iptables", "ip6tables") for suffix in ("", "-restore", "-save")]
KINDS = pytest.mark.parametrize("kind", ["iptables", "legacy", "nftables"])
USED = [Prefix.parse("10.44.9.0/32"), Prefix.parse("10.5.3.0/32")]
"""Both daemons' devices have an address on this host."""
OURS = [line for line in NAT.splitlines() if "10.5." in line]
FLANNELD = [
    ("nat", "FLANNEL-POSTRTG", "flanneld masq", rule)
    for rule in (
        "-m mark --mark 0x4000/0x4000 -j RETURN",
        "-s 10.44.9.0/24 -d 10.44.0.0/16 -j RETURN",
        "-s 10.44.0.0/16 -d 10.44.9.0/24 -j RETURN",
        "! -s 10.44.0.0/16 -d 10.44.9.0/24 -j RETURN",
        "-s 10.44.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully",
        "! -s 10.44.0.0/16 -d 10.44.0.0/16 -j MASQUERADE --random-fully",
    )
] + [
    ("filter", "FLANNEL-FWD", "flanneld forward", rule)
    for rule in ("-s 10.44.0.0/16 -j ACCEPT", "-d 10.44.0.0/16 -j ACCEPT")
]


@pytest.fixture(autouse=True)
def _programs():
    require("iptables", "iptables-legacy", "nft")


def everything(kind):
    return ruleset() if kind == "nftables" else "\n".join(saved())


def flanneld():
    """One turn of flanneld's look at its rules: what is missing is appended, and nothing else is touched."""
    appended = []
    for one, parent, jump in (("nat", "POSTROUTING", NAT_JUMP), ("filter", "FORWARD", FORWARD_JUMP)):
        if jump not in listed(parent, one).splitlines():
            sh("iptables", "-t", one, *shlex.split(jump))
            appended.append(jump)
    for one, chain, comment, rule in FLANNELD:
        match, _, target = rule.partition("-j ")
        words = ["-t", one, "{}", chain, *match.split(), "-m", "comment", "--comment", comment, "-j", *target.split()]
        try:
            sh("iptables", *(word.format("-C") for word in words))
        except AssertionError:
            sh("iptables", *(word.format("-A") for word in words))
            appended.append(rule)
    return appended


@KINDS
@in_namespace
async def test_two_of_ours_repair_nothing_of_each_other(tmp_path, kind):
    """On the version before each took the other's rules away, every few seconds, for ever."""
    if kind == "legacy":
        only(tmp_path, *PROGRAMS, "nft", "sh", legacy=True)
    nftables = kind == "nftables"
    one, other = Firewall(PLAN, nftables=nftables), Firewall(OTHER, nftables=nftables)
    await one.apply(USED)
    await other.apply(USED)
    assert (await one.ensure(), await other.ensure()) == ((), ())
    both = everything(kind)
    assert all(network in both for network in ("10.5.3.0/24", "10.44.9.0/24"))
    again = Firewall(PLAN, nftables=nftables)
    assert await again.apply(USED) == (), "a restart beside the other"
    await again.undo()
    assert everything(kind) == both
    if nftables:
        sh("nft", "flush", "chain", *TABLE.split(), "postrtg")
    else:
        sh("iptables", "-t", "nat", "-F", "FLANNEL-POSTRTG")
    assert len(await one.ensure()) == len(await other.ensure()) == 1
    assert (await one.ensure(), await other.ensure()) == ((), ())
    assert sorted(everything(kind).splitlines()) == sorted(both.splitlines())


@KINDS
@in_namespace
async def test_two_that_start_at_once_lose_no_rule(tmp_path, kind):
    if kind == "legacy":
        only(tmp_path, *PROGRAMS, "nft", "sh", legacy=True)
    daemons = [Firewall(plan, nftables=kind == "nftables") for plan in (PLAN, OTHER)]
    await asyncio.gather(*(it.apply(USED) for it in daemons))
    assert [await it.ensure() for it in daemons] == [(), ()]


@KINDS
@in_namespace
async def test_what_one_no_longer_wants_goes_and_the_others_stays(tmp_path, kind):
    if kind == "legacy":
        only(tmp_path, *PROGRAMS, "nft", "sh", legacy=True)
    nftables = kind == "nftables"
    other = Firewall(OTHER, nftables=nftables)
    await other.apply(USED)
    alone = everything(kind)
    await Firewall(PLAN, nftables=nftables).apply(USED)
    await Firewall(replace(PLAN, masquerade=False, forward=False), nftables=nftables).apply(USED)
    assert (everything(kind), await other.ensure()) == (alone, ())
    await Firewall(PLAN, nftables=nftables).apply(USED)
    await remove(keep_others([NETWORK]))
    assert (everything(kind), await other.ensure()) == (alone, ())
    failed = Firewall(PLAN, nftables=nftables)
    await failed.apply(USED)
    await failed.undo()
    assert (everything(kind), await other.ensure()) == (alone, ())
    await Firewall(PLAN, nftables=not nftables).apply(USED)
    assert await other.ensure() == (), "one by iptables, one by nft"
    await Firewall(PLAN, nftables=nftables).apply(USED)
    assert await other.ensure() == ()


@in_namespace
async def test_the_rules_of_a_network_that_is_gone_go_with_the_next_start():
    before = others()
    await Firewall(OTHER, nftables=False).apply()
    await Firewall(PLAN, nftables=False).apply([Prefix.parse("10.5.3.0/32"), Prefix.parse("192.0.2.1/32")])
    assert "10.44." not in "\n".join(saved())
    await Firewall(OTHER, nftables=False).apply()
    await Firewall(PLAN, nftables=False, previous=[OTHER.network]).apply(USED)
    assert "10.44." not in "\n".join(saved()), "our own earlier network is no other daemon's"
    await remove()
    assert saved() == before


@pytest.mark.parametrize("legacy", [False, True], ids=["nft", "legacy"])
@in_namespace
async def test_beside_flanneld_nobody_repairs_anything(tmp_path, legacy):
    if legacy:
        only(tmp_path, *PROGRAMS, "nft", "sh", legacy=True)
    firewall = Firewall(PLAN, nftables=False)
    await firewall.apply(USED)
    assert flanneld() == [rule for *_, rule in FLANNELD if "--mark" not in rule]
    assert await firewall.ensure() == ()
    assert flanneld() == []
    sh("iptables", "-t", "nat", "-F", "FLANNEL-POSTRTG")  # as a flanneld does that starts
    assert len(flanneld()) == 6
    assert len(await firewall.ensure()) == 1
    assert (flanneld(), await firewall.ensure()) == ([], ())
    assert [rule for rule in listed("FLANNEL-POSTRTG").splitlines() if rule in OURS] == OURS
    assert await Firewall(PLAN, nftables=False).apply(USED) == ()


@in_namespace
async def test_flannelds_table_in_nftables_is_shared():
    sh("nft", "-f", "-", text=FLANNELS)
    firewall = Firewall(PLAN, nftables=True)
    await firewall.apply(USED)
    theirs = [line.partition("postrtg ")[2] for line in FLANNELS.splitlines() if "rule" in line and "10.44" in line]
    assert [line.strip() for line in table().splitlines() if "10.44" in line] == theirs
    assert "ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random" in table()
    assert await firewall.ensure() == ()
    await remove(keep_others([NETWORK]))
    assert [line.strip() for line in table().splitlines() if "10.44" in line] == theirs
    assert "10.5." not in table()
