"""What `iptables -S` says, what is wrong with it, and the text that puts it right: on a model of iptables-restore."""

import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.errors import HostError
from udpbackend.host import firewall_program
from udpbackend.host.firewall_program import Ended
from udpbackend.host.firewall_rules import FORWARD, MASQUERADE, FirewallPlan, iptables_rules
from udpbackend.host.iptables import Iptables, Listed, parse, problems, restore_text
from udpbackend.model import Prefix

PLAN = FirewallPlan(Prefix.parse("10.5.0.0/16"), Prefix.parse("10.5.3.0/24"), masquerade=True)
WANTED = iptables_rules(PLAN, 4)
NOTHING = iptables_rules(None, 4)
RIGHT = Listed(WANTED["nat"], 1)

FOREIGN = (
    "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    '-A POSTROUTING -m comment --comment "not flanneld masq" -j RETURN',
    "-A POSTROUTING -j FLANNEL-POSTRTG-OF-MINE",
)
STRAYS = (
    '-A POSTROUTING -s 10.44.0.0/16 -d 10.44.0.0/16 -m comment --comment "flanneld masq" -j RETURN',
    "-A POSTROUTING -s 10.44.0.0/16 -j FLANNEL-POSTRTG",
    "-A POSTROUTING -g FLANNEL-POSTRTG",
)


def listing(parent, own):
    """As `iptables -S` prints both chains."""
    shown = None if own is None else "".join(f"{line}\n" for line in ("-N FLANNEL-POSTRTG", *own))
    return parse(MASQUERADE, "".join(f"{line}\n" for line in ("-P POSTROUTING ACCEPT", *parent)), shown)


def restored(text, parent, own):
    """What iptables-restore --noflush makes of the two chains; fails where it would."""
    chains = {"POSTROUTING": list(parent)} | ({} if own is None else {"FLANNEL-POSTRTG": list(own)})
    lines = text.splitlines()
    if lines:
        assert (lines[0], lines[-1]) == ("*nat", "COMMIT")
    for line in lines[1:-1]:
        command, chain = line.split()[:2]
        if command.startswith(":"):
            chains[command[1:]] = []
        elif command == "-A":
            assert "-j FLANNEL-POSTRTG" not in line or "FLANNEL-POSTRTG" in chains
            chains[chain].append(line)
        elif command == "-D":
            chains[chain].remove(line.replace("-D", "-A", 1))
        elif command == "-F":
            chains[chain].clear()
        else:
            assert (command, chains[chain]) == ("-X", [])
            assert not any(chain in shlex.split(rule) for rule in chains["POSTROUTING"])
            del chains[chain]
    return chains["POSTROUTING"], chains.get("FLANNEL-POSTRTG")


def text_for(listed, wanted):
    return restore_text({MASQUERADE: listed}, wanted)


@given(
    parent=st.lists(st.sampled_from([*FOREIGN, *STRAYS, MASQUERADE.jump])),
    own=st.none() | st.just(WANTED["nat"]) | st.lists(st.sampled_from([*WANTED["nat"], "-A FLANNEL-POSTRTG -j DROP"])),
    wanted=st.sampled_from([WANTED, NOTHING, iptables_rules(replace(PLAN, fully_random=False), 4)]),
)
def test_whatever_was_there_becomes_what_is_wanted_and_the_rest_stays(parent, own, wanted):
    if own is None:
        parent = [rule for rule in parent if rule in FOREIGN or "-j RETURN" in rule]  # nothing leads to no chain
    listed = listing(parent, own)
    after, chain = restored(text_for(listed, wanted), parent, own)
    assert [rule for rule in after if rule != MASQUERADE.jump] == [rule for rule in parent if rule in FOREIGN]
    assert after.count(MASQUERADE.jump) == bool(wanted["nat"])
    assert chain == (list(wanted["nat"]) or None)
    settled = listing(after, chain)
    assert text_for(settled, wanted) == ""
    assert list(problems(MASQUERADE, settled, wanted["nat"])) == []
    assert bool(text_for(listed, wanted)) == bool(list(problems(MASQUERADE, listed, wanted["nat"])))


def test_an_unharmed_jump_keeps_its_place():
    parent = [MASQUERADE.jump, FOREIGN[0], MASQUERADE.jump, FOREIGN[1]]
    after, _ = restored(text_for(listing(parent, WANTED["nat"]), WANTED), parent, WANTED["nat"])
    assert after == [FOREIGN[0], MASQUERADE.jump, FOREIGN[1]]
    assert text_for(listing(after, WANTED["nat"]), WANTED) == ""


def test_both_tables_in_one_text():
    forward = iptables_rules(PLAN, 4)["filter"]
    text = restore_text({MASQUERADE: Listed(), FORWARD: Listed((), 1)}, WANTED)
    assert text.splitlines() == [
        *("*nat", ":FLANNEL-POSTRTG - [0:0]", *WANTED["nat"], MASQUERADE.jump, "COMMIT"),
        *("*filter", ":FLANNEL-FWD - [0:0]", *forward, "COMMIT"),
    ]
    assert restore_text({MASQUERADE: RIGHT, FORWARD: Listed(forward, 1)}, WANTED) == ""


class Script:
    """Answers in place of the programs, in turn."""

    def __init__(self, *answers):
        self.left = list(answers)
        self.texts = []

    def run(self, program, *arguments, text=""):
        if text:
            self.texts.append(text)
        status, out, err = self.left.pop(0)
        return Ended(f"{program} {' '.join(arguments)}", status, out, err)


@pytest.fixture
def script(monkeypatch):
    def play(*answers):
        played = Script(*answers)
        monkeypatch.setattr(firewall_program, "run", played.run)
        monkeypatch.setattr(firewall_program, "installed", lambda _: True)
        return played

    return play


NAT_ONLY = {"nat": WANTED["nat"]}
ABSENT = (1, "", "iptables: No chain/target/match by that name.")
JUMPS = (0, f"-P POSTROUTING ACCEPT\n{MASQUERADE.jump}\n{MASQUERADE.jump}\n", "")
CLEAR = (0, "-P POSTROUTING ACCEPT\n", "")
FAILS = (1, "", "iptables-restore: line 2 failed")
DONE = (0, "", "")


def test_a_change_that_somebody_else_spoils_is_made_anew(script):
    played = script(JUMPS, ABSENT, FAILS, CLEAR, ABSENT, DONE)
    assert Iptables(4).settle(NAT_ONLY) == (
        "iptables table nat: no chain FLANNEL-POSTRTG",
        "iptables table nat: 2 jumps from POSTROUTING to FLANNEL-POSTRTG",
    )
    assert "-D POSTROUTING" in played.texts[0]
    assert "-D POSTROUTING" not in played.texts[1]
    assert not played.left


def test_a_change_that_somebody_else_makes_for_us_is_enough(script):
    in_place = (0, "-N FLANNEL-POSTRTG\n" + "\n".join(WANTED["nat"]), "")
    played = script(CLEAR, ABSENT, FAILS, (0, MASQUERADE.jump, ""), in_place)
    assert len(Iptables(4).settle(NAT_ONLY)) == 2
    assert not played.left


def test_a_change_that_fails_for_good_is_told(script):
    script(CLEAR, ABSENT, FAILS, CLEAR, ABSENT)
    with pytest.raises(HostError) as caught:
        Iptables(6).settle(NAT_ONLY)
    assert str(caught.value) == (
        "cannot change the rules of ip6tables: `ip6tables-restore --noflush --wait=5` ended with status 1: "
        "iptables-restore: line 2 failed"
    )


def test_a_table_that_the_kernel_does_not_have_holds_nothing(script):
    no_table = (3, "", "can't initialize ip6tables table `nat': Table does not exist (do you need to insmod?)")
    script(no_table, no_table)
    assert Iptables(4).look(NOTHING) == ()
    script((3, "", "can't initialize iptables table `nat': Permission denied (you must be root)"))
    with pytest.raises(
        HostError, match=r"cannot read the rules of iptables: .*; the capabilities NET_ADMIN and NET_RAW"
    ):
        Iptables(4).look(NOTHING)
    script(CLEAR, (4, "", "Resource temporarily unavailable"))
    with pytest.raises(HostError, match="Resource temporarily unavailable"):
        Iptables(4).look(NOTHING)
