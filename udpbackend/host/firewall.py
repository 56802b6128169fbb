"""Masquerading and forward rules on this host, by iptables or by nftables: put there, kept there, taken away.

Owns which of the two kinds is to hold the rules and that the other holds none, the turn of whoever changes them, and
what was there before us. Must not know the rules (`firewall_rules`), nor the programs' languages (`iptables`,
`nftables`).

Theory of operation: three holders (iptables, ip6tables, nftables) each compare what they hold with what they should
hold, and change it in one step. `apply` fills the holders of the chosen kind, then empties the others: at no moment are
there no rules. The rules stay when the daemon stops; the next start finds them as they should be and writes nothing.
All runs in a thread: the programs take milliseconds, and much longer where another one holds their lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from udpbackend.errors import HostError
from udpbackend.host.firewall_rules import FirewallPlan, Rules, iptables_rules, nft_tables
from udpbackend.host.generation import generation
from udpbackend.host.iptables import Iptables
from udpbackend.host.nftables import Nftables

logger = logging.getLogger(__name__)

T = TypeVar("T")

BRIDGE = Path("/proc/sys/net/bridge")


class Holder(Protocol):
    """Where rules are held."""

    def look(self, wanted: Rules) -> tuple[str, ...]:
        """What differs, in the tables that `wanted` names."""

    def settle(self, wanted: Rules) -> tuple[str, ...]:
        """Cures it, and tells what it was."""

    def held(self) -> Rules:
        """What is there."""

    def in_nf_tables(self) -> bool:
        """Whether that is where the rules are."""


class Firewall:
    """The rules of one plan; one object for a run of the daemon."""

    def __init__(self, plan: FirewallPlan, *, nftables: bool) -> None:
        """`nftables`: by nft, as EnableNFTables asks; by iptables otherwise."""
        self._chosen = _holders(plan, nftables=nftables)
        self._other = _holders(None, nftables=not nftables)
        self._before: list[tuple[Holder, Rules]] = []
        self._right: int | None = None
        """The generation of nf_tables at which all was seen to be right."""
        self._turn = asyncio.Lock()

    async def apply(self) -> tuple[str, ...]:
        """Puts the rules there and takes away the other kind's and an earlier plan's; what had to change, in words.

        HostError if a program that is needed is missing or fails; `undo` takes back what was done until then.
        """
        return await self._alone(self._apply)

    async def ensure(self) -> tuple[str, ...]:
        """Puts back what has gone missing or was changed; what that was, in words. Costs little when nothing was."""
        return await self._alone(self._ensure)

    async def undo(self) -> None:
        """For a start that has failed: the chains and tables become what they were before `apply`."""
        await self._alone(self._undo)

    async def _alone(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await _to_its_end(work)

    def _apply(self) -> tuple[str, ...]:
        done: list[str] = []
        for holder, wanted in self._chosen:
            self._before.append((holder, holder.held()))
            done += holder.settle(wanted)
        for holder, nothing in self._other:
            try:
                self._before.append((holder, holder.held()))
                done += holder.settle(nothing)
            except HostError as error:  # what cannot even be looked at holds no rules of ours, most likely
                logger.warning("rules of the other kind are not looked for: %s", error)
        return tuple(done)

    def _ensure(self) -> tuple[str, ...]:
        before = generation() if all(holder.in_nf_tables() for holder, _ in self._chosen) else None
        if before is not None and before == self._right:
            return ()  # nobody has changed a rule of this host since: the programs need not be run to see that
        self._right = None
        done: list[str] = []
        for holder, wanted in self._chosen:
            if ours := {table: lines for table, lines in wanted.items() if lines}:
                done += holder.settle(ours)
        self._right = before if not done else None
        return tuple(done)

    def _undo(self) -> None:
        while self._before:
            holder, rules = self._before.pop()
            holder.settle(rules)


async def leftovers() -> tuple[str, ...]:
    """Every chain, table and rule of ours and flannel's on this host, of both kinds, in words."""
    return await _to_its_end(lambda: _each(lambda holder, nothing: holder.look(nothing)))


async def remove() -> tuple[str, ...]:
    """Takes all of that away; what it was, in words. A program that is not installed has left nothing."""
    return await _to_its_end(lambda: _each(lambda holder, nothing: holder.settle(nothing)))


def bridge_problem(*, ipv6: bool, folder: Path = BRIDGE) -> str | None:
    """What keeps iptables from seeing packets between two pods of this node, in flannel's words and ours; or None.

    nftables is not concerned: flannel does not ask there either.
    """
    for name in ("bridge-nf-call-iptables", *(["bridge-nf-call-ip6tables"] if ipv6 else [])):
        if not (folder / name).exists():
            missing = f"stat {folder / name}: no such file or directory"
            return f"Failed to check br_netfilter: {missing}; `modprobe br_netfilter` loads the module"
    return None


def _holders(plan: FirewallPlan | None, *, nftables: bool) -> list[tuple[Holder, Rules]]:
    if nftables:
        return [(Nftables(), nft_tables(plan))]
    return [(Iptables(version), iptables_rules(plan, version)) for version in (4, 6)]


def _each(work: Callable[[Holder, Rules], tuple[str, ...]]) -> tuple[str, ...]:
    """All holders get their turn before the first failure is raised."""
    found: list[str] = []
    failures = []
    for nftables in (False, True):
        for holder, nothing in _holders(None, nftables=nftables):
            try:
                found += work(holder, nothing)
            except HostError as error:
                failures.append(error)
    if failures:
        raise failures[0]
    return tuple(found)


async def _to_its_end(work: Callable[[], T]) -> T:
    """Runs it in a thread. Who is cancelled meanwhile still waits for its end: nobody else is to change rules then."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait((running,))
        if not running.cancelled():
            running.exception()  # seen: nobody is left to be told
        raise
