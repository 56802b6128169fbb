"""Our two tables in nftables: what is there, what differs, put right in one transaction.

Owns the tables of flannel's names, whoever has made them, and touches no other. Must not know where the rules come
from, nor whose another rule in them is (`firewall_shared`). Blocks; for threads.

Theory of operation: a table is compared as the text that `nft list table` prints. A version of nft that prints other
words than we do is met by remembering what it printed right after our own change. A table that differs is deleted and
made again in the same transaction: a packet meets the old rules or the new ones. Rules of another network, whose daemon
has them in the same table, are made again with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from udpbackend.host import firewall_program
from udpbackend.host.firewall_rules import NFT_TABLES, Rules
from udpbackend.host.firewall_shared import Keep, merged, nothing

PROGRAM = "nft"
NO_TABLE = "No such file or directory"
HEAD_LINES = 2
"""A table's first line and its comment."""


class Nftables:
    """Both IP versions' tables."""

    def __init__(self) -> None:
        self._printed: dict[str, str] = {}
        """A line of ours, and how nft prints it where it prints it otherwise."""

    def look(self, wanted: Rules, keep: Keep = nothing) -> tuple[str, ...]:
        """What differs in the tables that `wanted` names, a phrase each; changes nothing."""
        if not _able(wanted):
            return ()
        listed = self._read(wanted)
        return tuple(_problems(listed, _aim(listed, wanted, keep)))

    def settle(
        self,
        wanted: Rules,
        keep: Keep = nothing,
        *,
        first: bool = False,  # noqa: ARG002  (a word of all holders)
    ) -> tuple[str, ...]:
        """Makes those tables hold what they should; what had differed.

        `keep`: rules beside ours that stay. `first` has no meaning here: every base chain has its say.
        """
        if not _able(wanted):
            return ()
        listed = self._read(wanted)
        aim = _aim(listed, wanted, keep)
        found = tuple(_problems(listed, aim))
        if found:
            wrong = {table: aim[table] for table in listed if listed[table] != aim[table]}
            done = firewall_program.run(PROGRAM, "-f", "-", text=transaction(listed, wrong))
            if done.status != 0:
                raise done.failure("change the rules of nftables")
            self._remember(wrong)
        return found

    def in_nf_tables(self) -> bool:
        """They are nowhere else."""
        return True

    def held(self) -> Rules:
        """What is there, in a form that `settle` takes."""
        none: Rules = dict.fromkeys(NFT_TABLES.values(), ())
        return self._read(none) if _able(none) else none

    def _read(self, wanted: Rules) -> Rules:
        """In our words."""
        ours = {printed: line for line, printed in self._printed.items()}
        return {table: tuple(ours.get(line, line) for line in _list(table)) for table in wanted}

    def _remember(self, wanted: Rules) -> None:
        for table, ours in wanted.items():
            printed = _list(table)
            if len(printed) == len(ours):  # not what another program has made of it meanwhile
                self._printed.update((line, other) for line, other in zip(ours, printed, strict=True) if line != other)


class Chain(NamedTuple):
    """A chain of a table."""

    head: tuple[str, ...]
    """Its lines but for rules and the brace at its end."""
    rules: tuple[str, ...]


def transaction(listed: Rules, wanted: Rules) -> str:
    """What `nft -f -` is to read, so that each table in `wanted` becomes that."""
    lines: list[str] = []
    for table, text in wanted.items():
        if listed[table]:
            lines.append(f"delete table {table}")
        lines.extend(text)
    return "".join(f"{line}\n" for line in lines)


def beside(listed: tuple[str, ...], wanted: tuple[str, ...], keep: Keep) -> tuple[str, ...]:
    """The text of a table that is to be `wanted`, with what is kept of the one that is `listed`."""
    if not any(keep(line) for line in listed):
        return wanted
    there, ours = _chains(listed), _chains(wanted)
    lines = list((wanted or listed)[:HEAD_LINES])
    for name in [*ours, *(name for name in there if name not in ours)]:
        chain = ours.get(name) or there[name]
        rules = merged(there[name].rules if name in there else (), ours[name].rules if name in ours else (), keep)
        if rules:
            lines += [*([""] if len(lines) > HEAD_LINES else []), *chain.head, *rules, "\t}"]
    return (*lines, "}")


def _chains(text: tuple[str, ...]) -> Mapping[str, Chain]:
    found: dict[str, Chain] = {}
    name = ""
    for line in text:
        if line.startswith("\tchain "):
            name = line.split()[1]
            found[name] = Chain((line,), ())
        elif line == "\t}":
            name = ""
        elif name and line.startswith(("\t\ttype ", "\t\tcomment ")):
            found[name] = Chain((*found[name].head, line), ())
        elif name:
            found[name] = Chain(found[name].head, (*found[name].rules, line))
    return found


def _aim(listed: Rules, wanted: Rules, keep: Keep) -> Rules:
    """What the tables are to hold."""
    return {table: beside(lines, wanted[table], keep) for table, lines in listed.items()}


def _problems(listed: Rules, aim: Rules) -> Iterator[str]:
    for table, lines in listed.items():
        if not aim[table] and lines:
            yield f"nftables table {table}"
        elif aim[table] and not lines:
            yield f"nftables: no table {table}"
        elif lines != aim[table]:
            yield f"nftables table {table} does not hold its rules in their order"


def _able(wanted: Rules) -> bool:
    if any(wanted.values()):
        firewall_program.require(PROGRAM)
    return firewall_program.installed(PROGRAM)


def _list(table: str) -> tuple[str, ...]:
    done = firewall_program.run(PROGRAM, "--stateless", "list", "table", *table.split())
    if done.status == 0:
        return tuple(done.out.splitlines())
    if NO_TABLE in done.err:
        return ()
    raise done.failure(f"read the nftables table {table}")
