"""Our chains in the tables of iptables, and nothing else in them: what is there, what differs, put right in one go.

Owns the reading of `iptables -S`, the text for iptables-restore, and rules that bear flannel's comments. Must not know
where the rules come from. Blocks; for threads.

Theory of operation: a table is read by the two chains that concern us and not whole, because kube-proxy may have put
50,000 rules beside them. What differs becomes one text, and iptables-restore swaps each table in one step: a packet
meets the old rules or the new ones. Whether the program keeps them in nf_tables or in the older ip_tables is its
affair: `iptables` is what PATH says it is.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from udpbackend.host import firewall_program
from udpbackend.host.firewall_rules import BRANCHES, Branch, Rules

NO_CHAIN = 1
"""iptables' exit status when a chain is not there. (Its words differ: those of 1.8.9 speak of incompatible chains.)"""
NO_TABLE = 3
"""Likewise when the kernel has no such table, and the words by which we know that from a lack of rights."""
NO_TABLE_WORDS = ("does not exist", "not supported")

LOCK = "--wait=5"
"""Seconds to wait for another program's change of ip_tables."""

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


class Iptables:
    """One IP version's tables."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._program = {4: "iptables", 6: "ip6tables"}[version]

    def look(self, wanted: Rules) -> tuple[str, ...]:
        """What differs in the tables that `wanted` names, a phrase each; changes nothing."""
        if not self._able(wanted):
            return ()
        listed = self._read(wanted)
        return tuple(self._problems(listed, wanted))

    def settle(self, wanted: Rules) -> tuple[str, ...]:
        """Makes those tables hold what they should; what had differed."""
        if not self._able(wanted):
            return ()
        listed = self._read(wanted)
        found = tuple(self._problems(listed, wanted))
        for _ in range(TRIES):
            text = restore_text(listed, wanted)
            if not text:
                return found
            done = firewall_program.run(f"{self._program}-restore", "--noflush", LOCK, text=text)
            if done.status == 0:
                return found
            before, listed = listed, self._read(wanted)
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
        return {branch.table: listed.own or () for branch, listed in self._read(wanted).items()}

    def _able(self, wanted: Rules) -> bool:
        """Whether there is something to work on; HostError where there must be and is not."""
        if any(wanted.values()):
            firewall_program.require(self._program)
            return True
        return firewall_program.installed(self._program) and (self._version == 4 or IPV6.exists())

    def _read(self, wanted: Rules) -> dict[Branch, Listed]:
        return {branch: self._branch(branch) for branch in BRANCHES if branch.table in wanted}

    def _branch(self, branch: Branch) -> Listed:
        parent = self._list(branch, branch.parent)
        if parent.status == NO_TABLE and any(words in parent.err for words in NO_TABLE_WORDS):
            return Listed()
        if parent.status != 0:
            raise parent.failure(f"read the rules of {self._program}")
        own = self._list(branch, branch.chain)
        if own.status not in (0, NO_CHAIN):
            raise own.failure(f"read the rules of {self._program}")
        return parse(branch, parent.out, own.out if own.status == 0 else None)

    def _list(self, branch: Branch, chain: str) -> firewall_program.Ended:
        return firewall_program.run(self._program, LOCK, "-t", branch.table, "-S", chain)

    def _problems(self, listed: dict[Branch, Listed], wanted: Rules) -> Iterator[str]:
        for branch, found in listed.items():
            for words in problems(branch, found, wanted[branch.table]):
                yield f"{self._program} table {branch.table}: {words}"


def parse(branch: Branch, parent: str, own: str | None) -> Listed:
    """Reads what `iptables -S` says of the two chains; `own` is None where it knows no such chain."""
    rules = [line for line in parent.splitlines() if line.startswith("-A ")]
    ours = [line for line in rules if f'--comment "{branch.comment}"' in line or _leads(line, branch.chain)]
    return Listed(
        own=None if own is None else tuple(line for line in own.splitlines() if line.startswith("-A ")),
        jumps=ours.count(branch.jump),
        strays=tuple(line for line in ours if line != branch.jump),
    )


def problems(branch: Branch, listed: Listed, wanted: tuple[str, ...]) -> Iterator[str]:
    """What differs, in words; where nothing is wanted, what is there."""
    if not wanted:
        if listed.own is not None:
            yield f"chain {branch.chain} with {len(listed.own)} rules"
        if listed.jumps:
            yield f"jump from {branch.parent} to {branch.chain}"
    else:
        if listed.own is None:
            yield f"no chain {branch.chain}"
        elif listed.own != wanted:
            yield f"chain {branch.chain} does not hold its {len(wanted)} rules in their order"
        if listed.jumps != 1:
            yield f"{listed.jumps or 'no'} jumps from {branch.parent} to {branch.chain}"
    for rule in listed.strays:
        yield f"rule `{rule}`"


def restore_text(listed: dict[Branch, Listed], wanted: Rules) -> str:
    """What iptables-restore --noflush is to read; empty when all is as it should be."""
    tables = ((branch.table, tuple(_changes(branch, found, wanted[branch.table]))) for branch, found in listed.items())
    lines = itertools.chain.from_iterable((f"*{table}", *changes, "COMMIT") for table, changes in tables if changes)
    return "".join(f"{line}\n" for line in lines)


def _changes(branch: Branch, listed: Listed, wanted: tuple[str, ...]) -> Iterator[str]:
    if wanted and listed.own != wanted:
        yield f":{branch.chain} - [0:0]"  # made, or emptied
        yield from wanted
    for rule in listed.strays:
        yield _deletion(rule)
    for _ in range(listed.jumps - bool(wanted)):
        yield _deletion(branch.jump)  # the first of them; the last one stays
    if wanted and not listed.jumps:
        yield branch.jump
    if not wanted and listed.own is not None:
        yield f"-F {branch.chain}"
        yield f"-X {branch.chain}"


def _leads(rule: str, chain: str) -> bool:
    return any(f" {option} {chain} " in f"{rule} " for option in ("-j", "-g"))


def _deletion(rule: str) -> str:
    return "-D" + rule.removeprefix("-A")
