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
from udpbackend.host.firewall_shared import keep_others, nothing
from udpbackend.host.iptables import Iptables, Listed, aims_of, parse, problems, restore_text
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


def listing(parent, own, keep=nothing, ends=None):
    """As `iptables -S` prints both chains."""
    shown = None if own is None else "".join(f"{line}\n" for line in ("-N FLANNEL-POSTRTG", *own))
    return parse(MASQUERADE, "".join(f"{line}\n" for line in ("-P POSTROUTING ACCEPT", *parent)), shown, keep, ends)


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
        elif command == "-N":
            assert chain not in chains
            chains[chain] = []
        elif command == "-I":
            place, rest = line.split(" ", 3)[2:]
            assert 1 <= int(place) <= len(chains[chain]) + 1
            chains[chain].insert(int(place) - 1, f"-A {chain} {rest}")
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


def text_for(listed, wanted, keep=nothing, *, first=False):
    return restore_text({MASQUERADE: listed}, aims_of(wanted, keep, first=first))


def wrong_with(listed, wanted, keep=nothing, *, first=False):
    return list(problems(MASQUERADE, listed, aims_of(wanted, keep, first=first)(MASQUERADE, listed)))


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
    assert wrong_with(settled, wanted) == []
    assert bool(text_for(listed, wanted)) == bool(wrong_with(listed, wanted))


OTHER = iptables_rules(FirewallPlan(Prefix.parse("10.44.0.0/16"), Prefix.parse("10.44.9.0/24"), masquerade=True), 4)
KEEP = keep_others([PLAN.network])
MARKED = WANTED["nat"][0]
TAMPERED = "-A FLANNEL-POSTRTG -j DROP", WANTED["nat"][1].replace("10.5.3.0", "10.5.9.0")


@given(
    own=st.none() | st.lists(st.sampled_from([*WANTED["nat"], *OTHER["nat"], *TAMPERED])),
    wanted=st.sampled_from([WANTED, NOTHING]),
)
def test_another_networks_rules_stay_beside_ours_in_their_order(own, wanted):
    parent = [] if own is None else [MASQUERADE.jump]
    listed = listing(parent, own, KEEP)
    after, chain = restored(text_for(listed, wanted, KEEP), parent, own)
    theirs = [rule for rule in own or () if rule in OTHER["nat"][1:]]
    assert [rule for rule in chain or () if rule in OTHER["nat"][1:]] == theirs
    ours = [rule for rule in chain or () if rule in wanted["nat"][1:]]
    assert ours == list(wanted["nat"][1:])
    assert not set(TAMPERED).intersection(chain or ())
    assert after == [MASQUERADE.jump] * bool(chain)
    if wanted["nat"]:
        assert (chain[0], chain.count(MARKED)) == (MARKED, 1)
    assert wrong_with(listing(after, chain, KEEP), wanted, KEEP) == []


def test_two_networks_that_take_turns_come_to_rest():
    """Each daemon finds all as it should be once both have written: rules that are repaired for ever pass nothing."""
    parent, chain = [], None
    pairs = ((WANTED, KEEP), (OTHER, keep_others([Prefix.parse("10.44.0.0/16")])))
    for wanted, keep in (*pairs, *pairs):
        text = text_for(listing(parent, chain, keep), wanted, keep)
        parent, chain = restored(text, parent, chain)
    assert text == ""
    assert [rule for rule in chain if rule in WANTED["nat"]] == list(WANTED["nat"])
    assert [rule for rule in chain if rule in OTHER["nat"]] == list(OTHER["nat"])


REJECT = "-A POSTROUTING -j REJECT --reject-with icmp-host-prohibited"


def end_of(rules):
    return rules.index(REJECT) if REJECT in rules else None


@given(parent=st.lists(st.sampled_from([*FOREIGN, *STRAYS, REJECT, MASQUERADE.jump])), first=st.booleans())
def test_the_jump_comes_to_stand_before_a_rule_that_ends_every_packet(parent, first):
    own = WANTED["nat"]
    after, _ = restored(text_for(listing(parent, own, ends=end_of), WANTED, first=first), parent, own)
    others = [rule for rule in parent if rule in (*FOREIGN, REJECT)]
    assert [rule for rule in after if rule != MASQUERADE.jump] == others
    assert after.count(MASQUERADE.jump) == 1
    if REJECT in parent and (first or MASQUERADE.jump not in parent):
        assert after.index(MASQUERADE.jump) < after.index(REJECT)
    elif REJECT not in parent and MASQUERADE.jump not in parent:
        assert after[-1] == MASQUERADE.jump
    assert wrong_with(listing(after, own, ends=end_of), WANTED, first=first) == []


def test_an_unharmed_jump_keeps_its_place():
    parent = [MASQUERADE.jump, FOREIGN[0], MASQUERADE.jump, FOREIGN[1]]
    after, _ = restored(text_for(listing(parent, WANTED["nat"]), WANTED), parent, WANTED["nat"])
    assert after == [FOREIGN[0], MASQUERADE.jump, FOREIGN[1]]
    assert text_for(listing(after, WANTED["nat"]), WANTED) == ""


def test_both_tables_in_one_text():
    forward = iptables_rules(PLAN, 4)["filter"]
    text = restore_text({MASQUERADE: Listed(), FORWARD: Listed((), 1)}, aims_of(WANTED))
    assert text.splitlines() == [
        *("*nat", "-N FLANNEL-POSTRTG", *WANTED["nat"], MASQUERADE.jump, "COMMIT"),
        *("*filter", ":FLANNEL-FWD - [0:0]", *forward, "COMMIT"),
    ]
    assert restore_text({MASQUERADE: RIGHT, FORWARD: Listed(forward, 1)}, aims_of(WANTED)) == ""


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
        "cannot change the rules of ip6tables: `ip6tables-restore --noflush --wait=2` ended with status 1: "
        "iptables-restore: line 2 failed"
    )


def test_a_chain_that_cannot_be_read_is_not_one_that_is_not_there(script):
    """Whatever words a version has: then the whole table is asked."""
    odd, all_chains = (1, "", "something else"), "-P POSTROUTING ACCEPT\n"
    script(CLEAR, odd, (0, all_chains, ""))
    assert Iptables(4).look({"nat": ()}) == ()
    for whole in ((0, f"{all_chains}-N FLANNEL-POSTRTG\n", ""), (1, "", "something else")):
        script(CLEAR, odd, whole)
        with pytest.raises(HostError, match=r"cannot read the rules of iptables: .*something else"):
            Iptables(4).look({"nat": ()})


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
