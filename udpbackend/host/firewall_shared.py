"""Chains that several networks of one host share: whose a rule is, and what a chain is to become.

Owns the rule by which one is known for another network's: it bears no address of ours, and the addresses that it bears
are in use on this host. Pure: rules are lines as iptables or nft list them. Must not know either program.

Theory of operation: flannel gives its chains one name, whatever the network, and each flanneld of a host has its rules
in them; so do we. Which daemon is behind a rule nothing says, but every rule names its network, so rules of disjoint
networks never meet a packet of each other and may stand in any order between them. The rule for packets that
kube-proxy has marked names no network: one serves all, and stands first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence

from udpbackend.errors import ConfigError
from udpbackend.model import Prefix

Keep = Callable[[str], bool]
"""Whether a rule that is not among ours stays where it is."""

ADDRESS = re.compile(r"(?<![\w.:])(?:\d+(?:\.\d+){3}|[0-9a-fA-F]*:[0-9a-fA-F:]*)(?:/\d+)?(?![\w.:/])")
MULTICAST = (Prefix.parse("224.0.0.0/4"), Prefix.parse("ff00::/8"))
"""What flannel's rules name beside a network and its subnets."""


def nothing(_rule: str) -> bool:
    """Keeps no rule: this host has no network but ours."""
    return False


def prefixes(rule: str) -> list[Prefix]:
    """Every network that a rule names."""
    return [it for it in _read(ADDRESS.findall(rule)) if it not in MULTICAST]


def keep_others(ours: Collection[Prefix], used: Collection[Prefix] | None = None) -> Keep:
    """Keeps the rules of other networks than `ours`; of `used`, addresses of this host and its routes, if given."""

    def keep(rule: str) -> bool:
        named = prefixes(rule)
        if not named or any(it.overlaps(own) for it in named for own in ours):
            return False
        return used is None or any(it.contains(address) for it in named for address in used)

    return keep


def merged(listed: Sequence[str], wanted: Sequence[str], keep: Keep) -> tuple[str, ...]:
    """What a chain that holds `listed` is to hold: ours in their order, and beside them what is kept.

    `wanted` begins with the rules that name no network. Nothing changes its place without need.
    """
    if not any(keep(rule) for rule in listed if rule not in wanted):
        return tuple(wanted)
    stays = [rule for rule in listed if rule in wanted or keep(rule) or _serves_all(rule)]
    heads = [rule for rule in wanted if not prefixes(rule)]
    if [rule for rule in stays if rule in wanted] == list(wanted) and stays[: len(heads)] == heads:
        return tuple(stays)
    others = [rule for rule in stays if rule not in wanted]
    return (*heads, *others, *wanted[len(heads) :])


def _serves_all(rule: str) -> bool:
    return not prefixes(rule) and " mark " in rule and rule.lower().endswith("return")


def _read(texts: Sequence[str]) -> Iterator[Prefix]:
    for text in texts:
        try:
            yield Prefix.parse(text if "/" in text else f"{text}/{128 if ':' in text else 32}", mask=True)
        except ConfigError:
            continue  # a time of day, an Ethernet address
