"""A packet's walk through chains of rules: is it let through, ended by a rule, or can nobody tell.

Owns the walk and its three answers. Pure: it is handed rules that have been read (`forward_rules`). Must not know
programs, nor what is done about a rule that ends packets.

Theory of operation: of a rule that asks for what we do not know (a mark, a set, a port) we cannot say whether it meets
the packet. Where such a rule would have decided, the walk is unsure, and unsure it stays: an answer is only given where
it is certain, so that nobody is told of a fault that is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, NamedTuple

Action = Literal["accept", "end", "return", "jump", "goto", "pass", "unknown"]
"""What a rule does with a packet it meets; `pass` goes on to the next one."""

DEEP = 16
"""So many chains one into the other are followed: the kernel allows as many jumps."""


class Packet(NamedTuple):
    """The first TCP packet of a connection, where this host forwards it."""

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    came: str
    """The device it has come in by."""
    leaves: str
    """The device it is to leave by."""


class Rule(NamedTuple):
    """A rule as one packet sees it."""

    meets: bool | None
    """None: that cannot be told."""
    action: Action
    target: str = ""
    """The chain of a jump or goto."""
    text: str = ""
    """As its program lists it."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in their order, and what becomes of a packet that none of them decides about."""

    rules: Sequence[Rule]
    policy: Action = "return"


@dataclass(frozen=True, slots=True)
class Ended:
    """A packet is ended for certain."""

    place: int | None
    """Of the rule in the first chain by which it came to that; None: no rule, but the chain's policy."""
    chain: str
    """Where the rule that ends it stands."""
    text: str
    """That rule; empty: it is the policy."""


Outcome = Ended | Literal["accept", "return", "unsure"]


def walk(name: str, chain_of: Callable[[str], Chain | None], depth: int = 0) -> Outcome:
    """What becomes of a packet in the chain of that name; `chain_of` gives None for what is no chain."""
    chain = chain_of(name)
    if chain is None or depth > DEEP:
        return "unsure"
    unsure = False
    for place, rule in enumerate(chain.rules):
        if rule.meets is False or rule.action == "pass":
            continue
        outcome = _decided(rule, name, chain_of, depth)
        if outcome == "return" and rule.action == "jump":
            continue
        if rule.meets is None or outcome == "unsure" or unsure:
            unsure = True
            continue
        if isinstance(outcome, Ended):
            return Ended(place, outcome.chain, outcome.text)
        return outcome if outcome == "accept" else _at_the_end(name, chain.policy)
    return "unsure" if unsure else _at_the_end(name, chain.policy)


def _decided(rule: Rule, name: str, chain_of: Callable[[str], Chain | None], depth: int) -> Outcome:
    match rule.action:
        case "accept" | "return":
            return rule.action
        case "end":
            return Ended(None, name, rule.text)
        case "jump" | "goto":
            return walk(rule.target, chain_of, depth + 1)
        case _:
            return "unsure"


def _at_the_end(name: str, policy: Action) -> Outcome:
    if policy == "end":
        return Ended(None, name, "")
    return "accept" if policy == "accept" else "return"
