"""Masquerading and forward rules on this host, by iptables or by nftables: put there, kept there, taken away.

Owns which of the two kinds is to hold the rules and that the other holds none, the turn of whoever changes them, and
what was there before us. Must not know the rules (`firewall_rules`), nor the programs' languages (`iptables`,
`nftables`).

Theory of operation: three holders (iptables, ip6tables, nftables) each compare what they hold with what they should
hold, and change it in one step. `apply` fills the holders of the chosen kind, then empties the others: at no moment are
there no rules. The rules stay when the daemon stops; the next start finds them as they should be and writes nothing.
All runs in a thread: the programs take milliseconds, and much longer where another one holds their lock.

Another network of this host has its rules in the same chains and tables, written by another daemon of ours or by
flanneld. A start leaves those of networks that this host is part of, and takes away those of networks that are gone;
after that whatever is another network's is left alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from udpbackend.errors import BusyError, HostError
from udpbackend.host import firewall_program
from udpbackend.host.firewall_rules import FirewallPlan, Rules, iptables_rules, nft_tables
from udpbackend.host.firewall_shared import Keep, keep_others, nothing
from udpbackend.host.forward_look import Obstacle, obstacles
from udpbackend.host.forward_passage import Passage
from udpbackend.host.generation import generation
from udpbackend.host.iptables import Iptables
from udpbackend.host.nftables import Nftables
from udpbackend.host.turn import turn
from udpbackend.model import Prefix

logger = logging.getLogger(__name__)

T = TypeVar("T")

BRIDGE = Path("/proc/sys/net/bridge")


class Holder(Protocol):
    """Where rules are held."""

    def look(self, wanted: Rules, keep: Keep = nothing) -> tuple[str, ...]:
        """What differs, in the tables that `wanted` names; `keep`: rules beside ours that are to stay."""

    def settle(self, wanted: Rules, keep: Keep = nothing, *, first: bool = False) -> tuple[str, ...]:
        """Cures it, and tells what it was. `first`: our rules also come to stand where packets meet them."""

    def held(self) -> Rules:
        """What is there."""

    def in_nf_tables(self) -> bool:
        """Whether that is where the rules are."""


class Firewall:
    """The rules of one plan; one object for a run of the daemon."""

    def __init__(self, plan: FirewallPlan, *, nftables: bool, previous: Sequence[Prefix] = ()) -> None:
        """`nftables`: by nft, as EnableNFTables asks; by iptables otherwise. `previous`: networks this was before."""
        self._chosen = _holders(plan, nftables=nftables)
        self._other = _holders(None, nftables=not nftables)
        self._ours = (*plan.networks, *previous)
        self._passages = passages(plan)
        self._before: list[tuple[Holder, Rules]] = []
        self._right: int | None = None
        """The generation of nf_tables at which all was seen to be right."""
        self._found: list[Obstacle] = []
        self._walked: int | None = None
        """What ended our packets, and the generation at which that was seen."""
        self._turn = asyncio.Lock()

    async def apply(self, used: Sequence[Prefix] = ()) -> tuple[str, ...]:
        """Puts the rules there and takes away the other kind's and an earlier plan's; what had to change, in words.

        `used`: addresses and routes of this host beside ours; rules of networks that hold one of them stay. HostError
        if a program that is needed is missing or fails, BusyError if one is being kept from it; `undo` takes back what
        was done until then.
        """
        keep = keep_others(self._ours, used)
        return await self._alone(lambda: self._apply(keep))

    async def ensure(self) -> tuple[str, ...]:
        """Puts back what has gone missing or was changed; what that was, in words. Costs little when nothing was."""
        return await self._alone(self._ensure)

    async def obstacles(self) -> list[Obstacle]:
        """What of this host's firewall ends packets of the overlay all the same. Raises HostError."""
        return await self._alone(self._obstacles)

    async def undo(self) -> None:
        """For a start that has failed: the chains and tables become what they were before `apply`."""
        await self._alone(self._undo)

    async def _alone(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await _to_its_end(work)

    def _apply(self, keep: Keep) -> tuple[str, ...]:
        done: list[str] = []
        for holder, wanted in self._chosen:
            self._before.append((holder, holder.held()))
            done += holder.settle(wanted, keep, first=True)
        for holder, none in self._other:
            try:
                self._before.append((holder, holder.held()))
                done += holder.settle(none, keep)
            except BusyError:
                raise
            except HostError as error:  # what cannot even be looked at holds no rules of ours, most likely
                logger.warning("rules of the other kind are not looked for: %s", error)
        return tuple(done)

    def _ensure(self) -> tuple[str, ...]:
        before = generation() if all(holder.in_nf_tables() for holder, _ in self._chosen) else None
        if before is not None and before == self._right:
            return ()  # nobody has changed a rule of this host since: the programs need not be run to see that
        self._right = None
        done: list[str] = []
        keep = keep_others(self._ours)
        for holder, wanted in self._chosen:
            if ours := {table: lines for table, lines in wanted.items() if lines}:
                done += holder.settle(ours, keep)
        self._right = before if not done else None
        return tuple(done)

    def _obstacles(self) -> list[Obstacle]:
        modern = not firewall_program.installed("iptables") or Iptables(4).in_nf_tables()
        now = generation() if modern else None
        if now is None or now != self._walked:
            self._found = obstacles(self._passages)
            self._walked = now
        return self._found

    def _undo(self) -> None:
        keep = keep_others(self._ours)
        while self._before:
            holder, rules = self._before.pop()
            holder.settle(rules, keep)


def passages(plan: FirewallPlan) -> list[Passage]:
    """The ways of the overlay's packets, one for each IP version."""
    shares = filter(None, map(plan.share, (4, 6)))
    return [Passage(network, subnet, plan.device) for network, subnet in shares]


async def leftovers() -> tuple[str, ...]:
    """Every chain, table and rule of ours and flannel's on this host, of both kinds, in words."""
    return await _to_its_end(lambda: _each(lambda holder, none: holder.look(none)))


async def remove(keep: Keep = nothing) -> tuple[str, ...]:
    """Takes it away, but for what is kept; what it was, in words. A program that is not installed has left nothing."""
    return await _to_its_end(lambda: _each(lambda holder, none: holder.settle(none, keep)))


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
    ways = passages(plan) if plan and plan.forward else []
    return [(Iptables(version, ways), iptables_rules(plan, version)) for version in (4, 6)]


def _each(work: Callable[[Holder, Rules], tuple[str, ...]]) -> tuple[str, ...]:
    """All holders get their turn before the first failure is raised."""
    found: list[str] = []
    failures = []
    for nftables in (False, True):
        for holder, none in _holders(None, nftables=nftables):
            try:
                found += work(holder, none)
            except HostError as error:
                failures.append(error)
    if failures:
        raise failures[0]
    return tuple(found)


async def _to_its_end(work: Callable[[], T]) -> T:
    """Runs it in a thread. Who is cancelled meanwhile still waits for its end: nobody else is to change rules then."""
    running = asyncio.ensure_future(asyncio.to_thread(_in_turn, work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait((running,))
        if not running.cancelled():
            running.exception()  # seen: nobody is left to be told
        raise


def _in_turn(work: Callable[[], T]) -> T:
    with turn():
        return work()
