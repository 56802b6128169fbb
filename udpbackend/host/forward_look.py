"""Whether this host's firewall lets the overlay's packets through on their way between pods and other nodes.

Owns the asking of iptables and nft, and what is said of a rule that ends such packets. Changes nothing. Must not know
who asks, nor our own rules: they are walked through like anybody's. Blocks; for threads.

In iptables a rule that accepts ends the walk, so it matters what stands before ours. In nftables every base chain has
its say: what one of them lets through another may end, and no rule of ours in a table of ours can help it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from typing import Any, NamedTuple

from udpbackend.host import firewall_program
from udpbackend.host.firewall_rules import FORWARD, NFT_TABLES
from udpbackend.host.forward_path import Chain, Ended, Outcome, Packet, walk
from udpbackend.host.forward_rules import iptables_chain, nft_chain
from udpbackend.host.iptables_list import list_chain
from udpbackend.host.mark import BRIDGE
from udpbackend.model import Prefix

PROGRAMS = {4: "iptables", 6: "ip6tables"}
FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}
PODS_PLACE = 2
"""Of an address in its subnet: the first that a pod may have."""


@dataclass(frozen=True, slots=True)
class Passage:
    """Whose packets, and by which devices they come and go."""

    network: Prefix
    subnet: Prefix
    device: str
    """That packets for other nodes leave by: the overlay's, or the underlay's where there is none."""

    @property
    def packets(self) -> tuple[Packet, Packet]:
        """One from a pod of this node, and one to it."""
        wide = WIDE[self.network.version]
        here = ip_address(wide(self.subnet.address + PODS_PLACE))
        there = ip_address(wide(self.network.last - PODS_PLACE))
        if self.subnet.holds(there):
            there = ip_address(wide(self.network.address + PODS_PLACE))
        return Packet(here, there, BRIDGE, self.device), Packet(there, here, self.device, BRIDGE)


WIDE: Mapping[int, Callable[[int], bytes]] = {4: lambda it: it.to_bytes(4, "big"), 6: lambda it: it.to_bytes(16, "big")}


class Obstacle(NamedTuple):
    """A rule or a policy that ends packets of the overlay."""

    what: str
    cure: str
    whole: bool
    """Whether it ends them in both directions."""


def obstacles(passages: Sequence[Passage]) -> list[Obstacle]:
    """What ends packets for certain, each once. Raises HostError where a program that is there cannot be asked."""
    found: list[Obstacle] = []
    for passage in passages:
        program = PROGRAMS[passage.network.version]
        asked = firewall_program.installed(program)
        if asked:
            found += _in_iptables(program, passage)
        if firewall_program.installed("nft"):
            found += _in_nft(passage, past_iptables=asked and "nf_tables" in firewall_program.run(program, "-V").out)
    return found


def first_end(program: str, rules: Sequence[str], passages: Sequence[Passage]) -> int | None:
    """The place, among these rules of FORWARD, of the first by which a packet comes to its end; None: there is none.

    They are rules of FORWARD as the program lists them, without those that lead to ours.
    """
    listed = "\n".join((f"-P {FORWARD.parent} ACCEPT", *rules))
    ends = (it for passage in passages for it in _ends(program, listed, passage))
    return min((it.place for it in ends if it and it.place is not None), default=None)


def _ends(program: str, listed: str, passage: Passage) -> list[Ended | None]:
    """For the packet from a pod and for the one to a pod."""

    def ended(packet: Packet) -> Ended | None:
        def chain_of(name: str) -> Chain | None:
            text = listed if name == FORWARD.parent else list_chain(program, FORWARD.table, name)
            return None if text is None else iptables_chain(text, packet)

        return _ended(walk(FORWARD.parent, cache(chain_of)))

    return list(map(ended, passage.packets))


def _in_iptables(program: str, passage: Passage) -> Iterator[Obstacle]:
    listed = list_chain(program, FORWARD.table, FORWARD.parent)
    ends = _ends(program, listed, passage) if listed is not None else []
    ended = next(filter(None, ends), None)
    if ended is None or listed is None:
        return
    network = passage.network
    rule = f"rule `{ended.text}`" if ended.text else "the policy DROP"
    what = f"{rule} of {program}' chain {ended.chain} ends packets {_which(ends, network)}"
    hand = f"{program} -I {FORWARD.parent} -s {network} -j ACCEPT, and the same with -d"
    if f"-j {FORWARD.chain}" in listed and ended.text:
        yield Obstacle(
            f"{what} before they come to {FORWARD.chain}",
            f"restart the daemon: it puts its rules before that one; or at once, {hand}",
            all(ends),
        )
    else:
        yield Obstacle(
            f"{what}, and no rule before lets them through",
            f"{hand}; a daemon has such rules itself, but with --iptables-forward-rules=false or EnableNFTables",
            all(ends),
        )


def _in_nft(passage: Passage, *, past_iptables: bool) -> Iterator[Obstacle]:
    network = passage.network
    for chain in _base_chains(network.version):
        family, table, name = chain["family"], chain["table"], chain["name"]
        place = f"{family} {table}"
        of_iptables = past_iptables and (table, name) == (FORWARD.table, FORWARD.parent)
        if of_iptables or place in NFT_TABLES.values():
            continue
        ends = [_nft_end(place, name, packet) for packet in passage.packets]
        ended = next(filter(None, ends), None)
        if ended is None:
            continue
        rule = f"rule `{_nft_text(place, ended)}`" if ended.text else "the policy drop"
        words = "ip" if network.version == 4 else "ip6"
        which = _which(ends, network)
        yield Obstacle(
            f"{rule} of nftables' chain {place} {ended.chain} ends packets {which}, whatever other chains say",
            f"nft insert rule {place} {name} {words} saddr {network} accept, and the same with daddr; and in the file "
            "that these rules are loaded from",
            all(ends),
        )


def _which(ends: Sequence[Ended | None], network: Prefix) -> str:
    out, back = ends
    if out and back:
        return f"of {network}"
    return (
        f"of {network} from pods of this node to others"
        if out
        else f"of {network} from other nodes to pods of this one"
    )


def _nft_end(place: str, name: str, packet: Packet) -> Ended | None:
    def chain_of(name: str) -> Chain | None:
        listed = _json("list", "chain", *place.split(), name)
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
