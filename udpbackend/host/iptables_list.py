"""One chain as `iptables -S` lists it.

Owns how long another program's change is waited for, and by what an absent chain or table is known. Must not know what
stands in a chain. Blocks; for threads.
"""

from __future__ import annotations

from udpbackend.host import firewall_program

NO_CHAIN = 1
"""iptables' exit status when a chain is not there, and for much else; and the words, which differ by version."""
NO_CHAIN_WORDS = ("No chain/target/match", "is incompatible, use 'nft' tool")
NO_TABLE = 3
"""Likewise when the kernel has no such table, and the words by which we know that from a lack of rights."""
NO_TABLE_WORDS = ("does not exist", "not supported")

LOCK = "--wait=2"
"""Seconds to wait for another program's change of ip_tables; who can wait longer asks again, and can stop between."""


def list_chain(program: str, table: str, chain: str) -> str | None:
    """What the program says of it; None where there is no such chain or table. Raises HostError, BusyError."""
    done = firewall_program.run(program, LOCK, "-t", table, "-S", chain)
    if done.status == 0:
        return done.out
    if done.status == NO_TABLE and any(words in done.err for words in NO_TABLE_WORDS):
        return None
    if done.status == NO_CHAIN and (
        any(words in done.err for words in NO_CHAIN_WORDS) or _lacks(program, table, chain)
    ):
        return None
    raise done.failure(f"read the rules of {program}")


def _lacks(program: str, table: str, chain: str) -> bool:
    """Whether a table lists no such chain: a version with other words. Not to be mistaken for one that is not read."""
    done = firewall_program.run(program, LOCK, "-t", table, "-S")
    chains = [words[1] for line in done.out.splitlines() if (words := line.split())[:1] in (["-N"], ["-P"])]
    return done.status == 0 and chain not in chains
