"""Our two tables in nftables: what is there, what differs, put right in one transaction.

Owns the tables of flannel's names whole, whoever has made them, and touches no other. Must not know where the rules
come from. Blocks; for threads.

Theory of operation: a table is compared as the text that `nft list table` prints. A version of nft that prints other
words than we do is met by remembering what it printed right after our own change. A table that differs is deleted and
made again in the same transaction: a packet meets the old rules or the new ones.
"""

from __future__ import annotations

from collections.abc import Iterator

from udpbackend.host import firewall_program
from udpbackend.host.firewall_rules import NFT_TABLES, Rules

PROGRAM = "nft"
NO_TABLE = "No such file or directory"


class Nftables:
    """Both IP versions' tables."""

    def __init__(self) -> None:
        self._printed: dict[tuple[str, ...], tuple[str, ...]] = {}

    def look(self, wanted: Rules) -> tuple[str, ...]:
        """What differs in the tables that `wanted` names, a phrase each; changes nothing."""
        if not _able(wanted):
            return ()
        return tuple(self._problems(_read(wanted), wanted))

    def settle(self, wanted: Rules) -> tuple[str, ...]:
        """Makes those tables hold what they should; what had differed."""
        if not _able(wanted):
            return ()
        listed = _read(wanted)
        found = tuple(self._problems(listed, wanted))
        if found:
            wrong = {table: wanted[table] for table in listed if not self._right(listed[table], wanted[table])}
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
        nothing: Rules = dict.fromkeys(NFT_TABLES.values(), ())
        return _read(nothing) if _able(nothing) else nothing

    def _problems(self, listed: Rules, wanted: Rules) -> Iterator[str]:
        for table, lines in listed.items():
            if not wanted[table] and lines:
                yield f"nftables table {table}"
            elif wanted[table] and not lines:
                yield f"nftables: no table {table}"
            elif not self._right(lines, wanted[table]):
                yield f"nftables table {table} does not hold its rules in their order"

    def _right(self, lines: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
        return lines == wanted or (bool(lines) and lines == self._printed.get(wanted))

    def _remember(self, wanted: Rules) -> None:
        for table, lines in _read(wanted).items():
            if len(lines) == len(wanted[table]):  # not what another program has made of it meanwhile
                self._printed[wanted[table]] = lines


def transaction(listed: Rules, wanted: Rules) -> str:
    """What `nft -f -` is to read, so that each table in `wanted` becomes that."""
    lines: list[str] = []
    for table, text in wanted.items():
        if listed[table]:
            lines.append(f"delete table {table}")
        lines.extend(text)
    return "".join(f"{line}\n" for line in lines)


def _able(wanted: Rules) -> bool:
    if any(wanted.values()):
        firewall_program.require(PROGRAM)
    return firewall_program.installed(PROGRAM)


def _read(wanted: Rules) -> Rules:
    return {table: _list(table) for table in wanted}


def _list(table: str) -> tuple[str, ...]:
    done = firewall_program.run(PROGRAM, "--stateless", "list", "table", *table.split())
    if done.status == 0:
        return tuple(done.out.splitlines())
    if NO_TABLE in done.err:
        return ()
    raise done.failure(f"read the nftables table {table}")
