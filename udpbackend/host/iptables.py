"""Our rules in the tables of iptables, and nothing else in them: what is there, what differs, put right in one go.

Owns the text for iptables-restore, the place of our jump in FORWARD, and rules that bear flannel's comments. Must not
know where the rules come from, nor whose another rule in our chains is (`firewall_shared`). Blocks; for threads.

Theory of operation: a table is read by the two chains that concern us and not whole, because kube-proxy may have put
50,000 rules beside them. What differs becomes one text, and iptables-restore swaps each table in one step: a packet
meets the old rules or the new ones. A chain that another network's daemon uses too is changed rule by rule, so that
nothing it writes meanwhile is lost. Whether the program keeps them in nf_tables or in the older ip_tables is its
affair: `iptables` is what PATH says it is.

The jump in FORWARD stands where flannel puts it, at the end, so that network policies and an administrator's own drops
come first. Only where a rule there ends whatever packet comes does it stand before that one, or ours would never be
met. It is moved at a start, and later only put back: whoever puts such a rule before it while we run may mean it.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from udpbackend.host import firewall_program
from udpbackend.host.firewall_rules import BRANCHES, FORWARD, Branch, Rules
from udpbackend.host.firewall_shared import Keep, merged, nothing, prefixes
from udpbackend.host.forward_look import first_end
from udpbackend.host.forward_passage import Passage
from udpbackend.host.iptables_list import LOCK, list_chain

TRIES = 3
"""A rule that another program removed between our look and our change fails the whole change; so we look again."""

IPV6 = Path("/proc/sys/net/ipv6")


@dataclass(frozen=True, slots=True)
class Listed:
    """What is there of a branch."""

    own: tuple[str, ...] | None = None
    """The rules of our chain; None where there is no such chain."""
    jumps: int = 0
    strays: tuple[str, ...] = ()
    """Rules of the parent that bear our comment, or lead to our chain, and are not our jump: an older flannel's."""
    ahead: int | None = None
    """How many of the parent's other rules stand before the jump, of several the last; None without a jump."""
    end: int | None = None
    """Of these other rules the place of the one that ends our packets, if there is one."""

    @property
    def late(self) -> bool:
        """Whether our packets come to their end before the jump."""
        return self.ahead is not None and self.end is not None and self.ahead > self.end


class Iptables:
    """One IP version's tables."""

    def __init__(self, version: int, passages: Sequence[Passage] = ()) -> None:
        """`passages`: the overlay's packets, for which the jump in FORWARD is to stand early enough."""
        self._version = version
        self._program = {4: "iptables", 6: "ip6tables"}[version]
        self._passages = [it for it in passages if it.network.version == version]

    def look(self, wanted: Rules, keep: Keep = nothing) -> tuple[str, ...]:
        """What differs in the tables that `wanted` names, a phrase each; changes nothing."""
        if not self._able(wanted):
            return ()
        return tuple(self._problems(self._read(wanted, keep), aims_of(wanted, keep)))

    def settle(self, wanted: Rules, keep: Keep = nothing, *, first: bool = False) -> tuple[str, ...]:
        """Makes those tables hold what they should; what had differed.

        `keep`: rules beside ours that stay. `first`: the jump is also moved, not only put back.
        """
        if not self._able(wanted):
            return ()
        aims = aims_of(wanted, keep, first=first)
        listed = self._read(wanted, keep)
        found = tuple(self._problems(listed, aims))
        for _ in range(TRIES):
            text = restore_text(listed, aims)
            if not text:
                return found
            done = firewall_program.run(f"{self._program}-restore", "--noflush", LOCK, text=text)
            if done.status == 0:
                return found
            before, listed = listed, self._read(wanted, keep)
            if listed == before:
                break
        raise done.failure(f"change the rules of {self._program}")

    def in_nf_tables(self) -> bool:
        """Whether this program is the newer kind, by its file: to run it would cost what the answer saves.

        Debian's alternatives and the scripts of images lead to xtables-nft-multi or xtables-legacy-multi.
        """
        found = shutil.which(self._program)
        return found is not None and Path(found).resolve().name == "xtables-nft-multi"

    def held(self) -> Rules:
        """What is there, in a form that `settle` takes."""
        wanted: Rules = {branch.table: () for branch in BRANCHES}
        if not self._able(wanted):
            return wanted
        return {branch.table: listed.own or () for branch, listed in self._read(wanted, nothing).items()}

    def _able(self, wanted: Rules) -> bool:
        """Whether there is something to work on; HostError where there must be and is not."""
        if any(wanted.values()):
            firewall_program.require(self._program)
            return True
        return firewall_program.installed(self._program) and (self._version == 4 or IPV6.exists())

    def _read(self, wanted: Rules, keep: Keep) -> dict[Branch, Listed]:
        return {branch: self._branch(branch, keep) for branch in BRANCHES if branch.table in wanted}

    def _branch(self, branch: Branch, keep: Keep) -> Listed:
        parent = list_chain(self._program, branch.table, branch.parent)
        if parent is None:
            return Listed()
        own = list_chain(self._program, branch.table, branch.chain)
        ends = self._first_end if branch is FORWARD and self._passages else None
        return parse(branch, parent, own, keep, ends)

    def _first_end(self, rules: Sequence[str]) -> int | None:
        return first_end(self._program, rules, self._passages)

    def _problems(self, listed: dict[Branch, Listed], aims: Callable[[Branch, Listed], Aim]) -> Iterator[str]:
        for branch, found in listed.items():
            for words in problems(branch, found, aims(branch, found)):
                yield f"{self._program} table {branch.table}: {words}"


@dataclass(frozen=True, slots=True)
class Aim:
    """What a branch is to hold."""

    ours: tuple[str, ...]
    whole: tuple[str, ...]
    """Ours and what stays beside it."""
    first: bool = False
    """Whether a jump that is too late is to be moved."""

    @property
    def shared(self) -> bool:
        """Whether there is more in the chain than what is ours."""
        return self.whole != self.ours


def aims_of(wanted: Rules, keep: Keep = nothing, *, first: bool = False) -> Callable[[Branch, Listed], Aim]:
    """What each branch is to hold, by what it holds now."""

    def aim(branch: Branch, listed: Listed) -> Aim:
        ours = wanted[branch.table]
        return Aim(ours, merged(listed.own or (), ours, keep), first)

    return aim


def parse(
    branch: Branch,
    parent: str,
    own: str | None,
    keep: Keep = nothing,
    ends: Callable[[Sequence[str]], int | None] | None = None,
) -> Listed:
    """Reads what `iptables -S` says of the two chains; `own` is None where it knows no such chain."""
    rules = [line for line in parent.splitlines() if line.startswith("-A ")]
    ours = [line for line in rules if _is_ours(line, branch) and not (line != branch.jump and keep(line))]
    others = [line for line in rules if line not in ours]
    last = max((place for place, line in enumerate(rules) if line == branch.jump), default=None)
    return Listed(
        own=None if own is None else tuple(line for line in own.splitlines() if line.startswith("-A ")),
        jumps=ours.count(branch.jump),
        strays=tuple(line for line in ours if line != branch.jump),
        ahead=None if last is None else sum(line in others for line in rules[:last]),
        end=ends(others) if ends else None,
    )


def problems(branch: Branch, listed: Listed, aim: Aim) -> Iterator[str]:
    """What differs, in words; where nothing is wanted, what is there."""
    if not aim.whole:
        if listed.own is not None:
            yield f"chain {branch.chain} with {len(listed.own)} rules"
        if listed.jumps:
            yield f"jump from {branch.parent} to {branch.chain}"
    else:
        if listed.own is None:
            yield f"no chain {branch.chain}"
        elif listed.own != aim.whole:
            yield f"chain {branch.chain} does not hold its {len(aim.ours)} rules in their order"
        if listed.jumps != 1:
            yield f"{listed.jumps or 'no'} jumps from {branch.parent} to {branch.chain}"
        elif aim.first and listed.late:
            yield f"the jump to {branch.chain} stands behind a rule of {branch.parent} that ends its packets"
    for rule in listed.strays:
        yield f"rule `{rule}`"


def restore_text(listed: dict[Branch, Listed], aims: Callable[[Branch, Listed], Aim]) -> str:
    """What iptables-restore --noflush is to read; empty when all is as it should be."""
    tables = ((branch.table, tuple(_changes(branch, found, aims(branch, found)))) for branch, found in listed.items())
    lines = itertools.chain.from_iterable((f"*{table}", *changes, "COMMIT") for table, changes in tables if changes)
    return "".join(f"{line}\n" for line in lines)


def _changes(branch: Branch, listed: Listed, aim: Aim) -> Iterator[str]:
    if aim.whole and listed.own != aim.whole:
        yield from _chain_changes(branch, listed.own, aim)
    for rule in listed.strays:
        yield _deletion(rule)
    anew = bool(aim.whole) and (not listed.jumps or (aim.first and listed.late))
    for _ in range(listed.jumps - (bool(aim.whole) and not anew)):
        yield _deletion(branch.jump)  # the first of them; the last one stays
    if anew:
        yield branch.jump if listed.end is None else _insertion(branch.jump, listed.end + 1)
    if not aim.whole and listed.own is not None:
        yield f"-F {branch.chain}"
        yield f"-X {branch.chain}"


def _chain_changes(branch: Branch, own: tuple[str, ...] | None, aim: Aim) -> Iterator[str]:
    if own is None:
        yield f"-N {branch.chain}"  # which is refused where another daemon has just made it
        yield from aim.whole
    elif not aim.shared:
        yield f":{branch.chain} - [0:0]"  # emptied
        yield from aim.whole
    else:
        extra = Counter(own) - Counter(aim.whole)
        if tuple(_without(own, extra)) == aim.whole:
            yield from map(_deletion, extra.elements())
            return
        others = Counter(aim.whole) - Counter(aim.ours)
        yield from (_deletion(rule) for rule in _without(own, others))
        heads = [rule for rule in aim.ours if not prefixes(rule)]
        yield from (_insertion(rule, place) for place, rule in enumerate(heads, 1))
        yield from aim.ours[len(heads) :]


def _without(rules: Sequence[str], less: Counter[str]) -> Iterator[str]:
    """These but for so many of each, the first ones: those that a deletion finds."""
    left = Counter(less)
    for rule in rules:
        if left[rule] > 0:
            left[rule] -= 1
        else:
            yield rule


def _is_ours(rule: str, branch: Branch) -> bool:
    return f'--comment "{branch.comment}"' in rule or _leads(rule, branch.chain)


def _leads(rule: str, chain: str) -> bool:
    return any(f" {option} {chain} " in f"{rule} " for option in ("-j", "-g"))


def _deletion(rule: str) -> str:
    return "-D" + rule.removeprefix("-A")


def _insertion(rule: str, place: int) -> str:
    """Puts it there, counted from 1."""
    _, chain, rest = rule.split(" ", 2)
    return f"-I {chain} {place} {rest}"
