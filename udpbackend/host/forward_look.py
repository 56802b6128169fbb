"""Whether this host's firewall lets the overlay's packets through on their way between pods and other nodes.

Owns the asking of iptables and nft, and what is said of a rule that ends such packets. Changes nothing. Must not know
who asks, nor our own rules: they are walked through like anybody's. Blocks; for threads.

In iptables a rule that accepts ends the walk, so it matters what stands before ours. In nftables every base chain has
its say: what one of them lets through another may end, and no rule of ours in a table of ours can help it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from udpbackend.host import firewall_program
from udpbackend.host.firewall_rules import FORWARD, NFT_TABLES
from udpbackend.host.forward_passage import Ends, Passage, which
from udpbackend.host.forward_path import Chain, Ended, Outcome, Packet, walk
from udpbackend.host.forward_rules import iptables_chain, nft_chain
from udpbackend.host.iptables_list import list_chain

PROGRAMS = {4: "iptables", 6: "ip6tables"}
FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}
IN_KERNEL = {4: Path("/proc/net/ip_tables_names"), 6: Path("/proc/net/ip6_tables_names")}
"""Tables of the older kind that the kernel holds: to list one that is not there would make it."""

Listing = Callable[[str], str | None]
"""What a program says of a chain; None where there is none."""


class Obstacle(NamedTuple):
    """A rule or a policy that ends packets of the overlay."""

    what: str
    cure: str
    whole: bool
    """Whether it ends all of them, in both directions."""
    leaving: bool
    """Whether it ends those that leave this node."""


def obstacles(passages: Sequence[Passage], *, older: bool = False) -> list[Obstacle]:
    """What ends packets for certain, each once. Raises HostError where a program that is there cannot be asked.

    `older`: also the tables that iptables once had, if iptables has others now: the kernel asks both.
    """
    found: list[Obstacle] = []
    for version, program in PROGRAMS.items():
        ways = [it for it in passages if it.network.version == version]
        if not ways:
            continue
        modern = False
        if firewall_program.installed(program):
            found += _in_iptables(program, ways)
            modern = "nf_tables" in firewall_program.run(program, "-V").out
        if older and modern and firewall_program.installed(f"{program}-legacy") and _has_older(version):
            found += _in_iptables(f"{program}-legacy", ways)
        if firewall_program.installed("nft"):
            found += _in_nft(ways, past_iptables=modern)
    return found


def first_end(program: str, rules: Sequence[str], passages: Sequence[Passage]) -> int | None:
    """The place, among these rules of FORWARD, of the first by which a packet comes to its end; None: there is none.

    They are rules of FORWARD as the program lists them, without those that lead to ours.
    """
    listing = _listing(program, "\n".join((f"-P {FORWARD.parent} ACCEPT", *rules)))
    ends = (it for passage in passages for it in _ends(listing, passage))
    return min((it.place for it in ends if it and it.place is not None), default=None)


def _listing(program: str, forward: str) -> Listing:
    """Each chain is asked for once, however many packets come to it."""
    listed = cache(partial(list_chain, program, FORWARD.table))
    return lambda name: forward if name == FORWARD.parent else listed(name)


def _ends(listing: Listing, passage: Passage) -> Ends:
    def ended(packet: Packet) -> Ended | None:
        def chain_of(name: str) -> Chain | None:
            text = listing(name)
            return None if text is None else iptables_chain(text, packet)

        return _ended(walk(FORWARD.parent, cache(chain_of)))

    out, back = passage.packets
    return ended(out), ended(back)


def _by_rule(found: Iterable[tuple[Passage, Ends]]) -> Iterator[tuple[Ended, list[Passage], Ends]]:
    """A rule with the packets that it ends; those of single nodes are not named where all nodes' are."""
    groups: dict[tuple[str, str], tuple[Ended, list[Passage], Ends]] = {}
    for passage, ends in found:
        ended = next(filter(None, ends), None)
        if ended is None:
            continue
        _, ways, _ = groups.setdefault((ended.chain, ended.text), (ended, [], ends))
        if not ways or ways[0].far:
            ways.append(passage)
    yield from groups.values()


def _in_iptables(program: str, passages: Sequence[Passage]) -> Iterator[Obstacle]:
    listed = list_chain(program, FORWARD.table, FORWARD.parent)
    if listed is None:
        return
    listing = _listing(program, listed)
    for ended, ways, ends in _by_rule((it, _ends(listing, it)) for it in passages):
        rule = f"rule `{ended.text}`" if ended.text else "the policy DROP"
        what = f"{rule} of {program}' chain {ended.chain} ends packets {which(ways, ends)}"
        whom = ways[0].far or ways[0].network
        hand = f"{program} -I {FORWARD.parent} -s {whom} -j ACCEPT, and the same with -d"
        if ways[0].far:
            cure = f"take it away, unless it is meant; or before it, for each of them, {hand}"
        elif program not in PROGRAMS.values():
            what += f", whatever {PROGRAMS[whom.version]} itself shows"
            cure = f"{hand}; or take the rules of that kind away: no daemon makes any beside the newer ones"
        elif f"-j {FORWARD.chain}" in listed and ended.text:
            what += f" before they come to {FORWARD.chain}"
            cure = f"restart the daemon: it puts its rules before that one; or at once, {hand}"
        else:
            what += ", and no rule before lets them through"
            cure = f"{hand}; a daemon has such rules itself, but with --iptables-forward-rules=false or EnableNFTables"
        yield _obstacle(what, cure, ways, ends)


def _obstacle(what: str, cure: str, ways: Sequence[Passage], ends: Ends) -> Obstacle:
    return Obstacle(what, cure, whole=all(ends) and not ways[0].far, leaving=ends[0] is not None)


def _has_older(version: int) -> bool:
    """Whether the kernel has such rules that forwarded packets go through; readable by root."""
    with suppress(OSError):
        return FORWARD.table in IN_KERNEL[version].read_text().split()
    return False


def _in_nft(passages: Sequence[Passage], *, past_iptables: bool) -> Iterator[Obstacle]:
    for chain in _base_chains(passages[0].network.version):
        family, table, name = chain["family"], chain["table"], chain["name"]
        place = f"{family} {table}"
        of_iptables = past_iptables and (table, name) == (FORWARD.table, FORWARD.parent)
        if of_iptables or place in NFT_TABLES.values():
            continue
        listing = cache(partial(_json, "list", "chain", *place.split()))
        found = (
            (it, (_nft_end(listing, name, out), _nft_end(listing, name, back)))
            for it in passages
            for out, back in [it.packets]
        )
        for ended, ways, ends in _by_rule(found):
            rule = f"rule `{_nft_text(place, ended)}`" if ended.text else "the policy drop"
            whom = ways[0].far or ways[0].network
            words = "ip" if whom.version == 4 else "ip6"
            what = f"{rule} of nftables' chain {place} {ended.chain} ends packets {which(ways, ends)}, whatever other "
            cure = f"nft insert rule {place} {name} {words} saddr {whom} accept, and the same with daddr; and in the "
            yield _obstacle(f"{what}chains say", f"{cure}file that these rules are loaded from", ways, ends)


def _nft_end(listing: Callable[[str], list[Mapping[str, Any]] | None], name: str, packet: Packet) -> Ended | None:
    def chain_of(name: str) -> Chain | None:
        listed = listing(name)
        return None if listed is None else nft_chain(listed, name, packet)

    return _ended(walk(name, cache(chain_of)))


def _ended(outcome: Outcome) -> Ended | None:
    return outcome if isinstance(outcome, Ended) else None


def _base_chains(version: int) -> list[Mapping[str, Any]]:
    chains = (item["chain"] for item in _json("list", "chains") or [] if "chain" in item)
    return [it for it in chains if it.get("hook") == "forward" and it["family"] in FAMILIES[version]]


def _nft_text(place: str, ended: Ended) -> str:
    """The rule in nft's words."""
    done = firewall_program.run("nft", "--handle", "list", "chain", *place.split(), ended.chain)
    lines = (line.strip().removesuffix(f" {ended.text}") for line in done.out.splitlines() if ended.text in line)
    return next(lines, ended.text)


def _json(*words: str) -> list[Mapping[str, Any]] | None:
    """What nft lists; None where it cannot, as for a chain that is gone."""
    done = firewall_program.run("nft", "--json", "--stateless", *words)
    if done.status != 0:
        return None
    try:
        found = json.loads(done.out)["nftables"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, list) else None
