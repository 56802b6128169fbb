"""The rules in nftables, and the way from one kind to the other; each test in a namespace of its own."""

import shutil
from dataclasses import replace

import pytest
from firewall_facts import OTHER, OTHERS_NFT, fake, listed, only, others, require, ruleset, saved, sh
from firewall_texts import NAT, NFT, PLAN, PLAN6, of_version_6
from inside import in_namespace

from udpbackend.errors import HostError
from udpbackend.host.firewall import Firewall, leftovers, remove

TABLE = "ip flannel-ipv4"
FLANNELS = """\
add table ip flannel-ipv4 { comment "rules for flannel-ipv4" ; }
add table ip6 flannel-ipv6 { comment "rules for flannel-ipv6" ; }
add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority 100 ; }
add rule ip flannel-ipv4 postrtg meta mark 0x4000 return
add rule ip flannel-ipv4 postrtg ip saddr 10.44.9.0/24 ip daddr 10.44.0.0/16 return
add rule ip flannel-ipv4 postrtg ip saddr 10.44.0.0/16 ip daddr 10.44.9.0/24 return
add rule ip flannel-ipv4 postrtg ip saddr != 10.44.9.0/24 ip daddr 10.44.0.0/16 return
add rule ip flannel-ipv4 postrtg ip saddr 10.44.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
add rule ip flannel-ipv4 postrtg ip saddr != 10.44.0.0/16 ip daddr 10.44.0.0/16 masquerade fully-random
"""
"""What flannel itself writes there; the fifth rule leaves nothing for the last."""


@pytest.fixture(autouse=True)
def _programs():
    require("iptables", "nft")


def table(name=TABLE):
    return sh("nft", "--stateless", "list", "table", *name.split())


@in_namespace
async def test_the_tables_are_flannels_beside_everybody_elses():
    sh("nft", "-f", "-", text=OTHERS_NFT)
    before = ruleset()
    firewall = Firewall(PLAN6, nftables=True)
    words = ("nftables: no table ip flannel-ipv4", "nftables: no table ip6 flannel-ipv6")
    assert await firewall.apply() == words
    assert table() == NFT
    assert table("ip6 flannel-ipv6") == of_version_6(NFT)
    found = await leftovers()
    assert found == ("nftables table ip flannel-ipv4", "nftables table ip6 flannel-ipv6")
    assert table() == NFT
    assert await remove() == found
    assert ruleset() == before
    assert await leftovers() == await remove() == ()


@in_namespace
async def test_what_is_as_it_should_be_is_not_written_again():
    await Firewall(PLAN, nftables=True).apply()
    before = sh("nft", "--handle", "list", "ruleset")
    firewall = Firewall(PLAN, nftables=True)
    assert await firewall.apply() == await firewall.ensure() == ()
    assert sh("nft", "--handle", "list", "ruleset") == before
    await firewall.undo()
    assert sh("nft", "--handle", "list", "ruleset") == before


@pytest.mark.parametrize(
    "damage",
    [
        f"flush chain {TABLE} postrtg",
        f"delete chain {TABLE} forward",
        f"add rule {TABLE} postrtg accept",
        f"insert rule {TABLE} forward drop",
        f"add chain {TABLE} more",
        f"delete table {TABLE}",
        f"delete table {TABLE}\n{FLANNELS.replace('10.44.', '10.5.')}",
    ],
)
@in_namespace
async def test_damage_is_repaired(damage):
    sh("nft", "-f", "-", text=OTHERS_NFT)
    firewall = Firewall(PLAN, nftables=True)
    await firewall.apply()
    sh("nft", "-f", "-", text=damage)
    assert table() != NFT if f"delete table {TABLE}" != damage else TABLE not in ruleset()
    [words] = await firewall.ensure()
    assert words in (
        "nftables: no table ip flannel-ipv4",
        "nftables table ip flannel-ipv4 does not hold its rules in their order",
    )
    assert await firewall.ensure() == ()
    assert table() == NFT
    assert OTHERS_NFT in ruleset()


@in_namespace
async def test_a_version_of_nft_with_other_words_is_believed_after_one_change(tmp_path):
    real = shutil.which("nft")
    fake(tmp_path, "nft", f'out=$({real} "$@") || exit; echo "$out" | sed \'s/fully-random/random,  fully/\'')
    firewall = Firewall(PLAN, nftables=True)
    await firewall.apply()
    before = sh(real, "--handle", "list", "ruleset")
    assert await firewall.ensure() == ()
    assert sh(real, "--handle", "list", "ruleset") == before
    sh(real, "flush", "chain", *TABLE.split(), "postrtg")
    assert len(await firewall.ensure()) == 1
    assert sh(real, "--stateless", "list", "table", *TABLE.split()) == NFT
    assert await firewall.ensure() == ()


@pytest.mark.parametrize("left", ["ours", "flannels"])
@in_namespace
async def test_from_nftables_to_iptables_and_back(left):
    others()
    before = saved()
    if left == "ours":
        await Firewall(PLAN6, nftables=True).apply()
    else:
        sh("nft", "-f", "-", text=FLANNELS)
    done = await Firewall(PLAN, nftables=False).apply()
    assert done[-2:] == ("nftables table ip flannel-ipv4", "nftables table ip6 flannel-ipv6")
    assert "flannel-ip" not in ruleset()
    assert listed("FLANNEL-POSTRTG") == NAT
    assert len(await Firewall(PLAN, nftables=True).apply()) == 5
    assert saved() == before
    assert table() == NFT


@in_namespace
async def test_an_earlier_networks_table_is_replaced():
    sh("nft", "-f", "-", text=FLANNELS)
    before = ruleset()
    firewall = Firewall(PLAN, nftables=True)
    assert len(await firewall.apply()) == 2
    assert ruleset() == NFT
    await firewall.undo()
    assert ruleset() == before
    await Firewall(OTHER, nftables=True).apply()
    await Firewall(replace(PLAN, forward=False), nftables=True).apply()
    assert "10.44." not in ruleset()
    assert "forward" not in table()


@in_namespace
async def test_a_failed_start_brings_the_other_kind_back():
    others()
    await Firewall(OTHER, nftables=False).apply()
    before = saved()
    firewall = Firewall(PLAN, nftables=True)
    await firewall.apply()
    await firewall.undo()
    assert saved() == before
    assert "flannel-ip" not in ruleset()


@in_namespace
async def test_each_kind_works_without_the_other_program(tmp_path):
    only(tmp_path, "nft")
    await Firewall(PLAN, nftables=True).apply()
    assert table() == NFT
    assert await remove() == ("nftables table ip flannel-ipv4",)
    (tmp_path / "nft").unlink()
    with pytest.raises(HostError, match="need the program nft, which is not on PATH: Debian's package nftables"):
        await Firewall(PLAN, nftables=True).apply()
    assert await remove() == ()


@in_namespace
async def test_a_broken_program_of_the_other_kind_does_not_keep_us_from_starting(tmp_path, caplog):
    fake(tmp_path, "iptables", "echo the kernel has no such thing >&2; exit 4")
    firewall = Firewall(PLAN, nftables=True)
    await firewall.apply()
    assert "the kernel has no such thing" in caplog.text
    assert table() == NFT
    with pytest.raises(HostError, match="the kernel has no such thing"):
        await remove()
    assert "flannel-ip" not in ruleset(), "the other holders had their turn"
