"""Which packets are masqueraded and which are let through: the rules as iptables and as nft write them.

Owns the rules, their order and the names they stand under, all of them flannel's, so that either of us takes over what
the other has left. Pure. Must not know programs or what a host holds now.

Theory of operation: a rule is a value; `iptables_rules` and `nft_tables` spell the same rules in two languages, in the
very form in which the program lists them again: what is written and what is looked for is one text.

P is this node's subnet, C the whole network. Between pods nothing is changed; what a pod sends elsewhere gets the
node's address; so does what somebody outside sends to another node's pods, but not what comes in for our own pods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from udpbackend.model import Prefix

Rules = Mapping[str, tuple[str, ...]]
"""By the table they stand in, the lines as the program lists them; no lines where none shall be there."""

KUBE_PROXY_MARK = "0x4000"
"""What kube-proxy sets on packets that it masquerades itself; twice would be too much for some kernels."""


@dataclass(frozen=True, slots=True)
class FirewallPlan:
    """What the rules follow from."""

    network: Prefix
    subnet: Prefix
    network6: Prefix | None = None
    subnet6: Prefix | None = None
    """Both or neither: a node without an IPv6 subnet has no IPv6 rules."""
    masquerade: bool = False
    """--ip-masq."""
    fully_random: bool = True
    """Source ports at random, so that two CPUs do not choose the same one; --ip-masq-fully-random-disable."""
    forward: bool = True
    """--iptables-forward-rules: what pods send and get passes a FORWARD chain whose policy is DROP."""
    device: str = "flannel0"
    """By which packets for other nodes leave this host: the overlay's, or the underlay's where there is none."""

    @property
    def networks(self) -> tuple[Prefix, ...]:
        """The network, one for each IP version."""
        return (self.network,) if self.network6 is None else (self.network, self.network6)

    def share(self, version: int) -> tuple[Prefix, Prefix] | None:
        """Network and own subnet of that IP version, if it has any."""
        if version == 4:
            return self.network, self.subnet
        return (self.network6, self.subnet6) if self.network6 and self.subnet6 else None


@dataclass(frozen=True, slots=True)
class Branch:
    """A chain of ours in a table of iptables, and the kernel's chain that leads to it."""

    table: str
    parent: str
    chain: str
    comment: str

    @property
    def jump(self) -> str:
        """The rule that leads there."""
        return f'-A {self.parent} -m comment --comment "{self.comment}" -j {self.chain}'


MASQUERADE = Branch("nat", "POSTROUTING", "FLANNEL-POSTRTG", "flanneld masq")
FORWARD = Branch("filter", "FORWARD", "FLANNEL-FWD", "flanneld forward")
BRANCHES = (MASQUERADE, FORWARD)

NFT_TABLES = {4: "ip flannel-ipv4", 6: "ip6 flannel-ipv6"}
"""Family and name."""

_NFT_MASQUERADE = (
    "chain postrtg {",
    '\tcomment "chain to manage traffic masquerading by flannel"',
    "\ttype nat hook postrouting priority srcnat; policy accept;",
)
_NFT_FORWARD = (
    "chain forward {",
    '\tcomment "chain to accept flannel traffic"',
    "\ttype filter hook forward priority filter; policy accept;",
)
_MULTICAST = {4: Prefix.parse("224.0.0.0/4"), 6: Prefix.parse("ff00::/8")}


@dataclass(frozen=True, slots=True)
class _Side:
    prefix: Prefix
    outside: bool = False
    """Every address but those of the prefix."""


@dataclass(frozen=True, slots=True)
class _Rule:
    verdict: str
    source: _Side | None = None
    destination: _Side | None = None
    marked: bool = False
    """Packets that bear kube-proxy's mark."""


def iptables_rules(plan: FirewallPlan | None, version: int) -> Rules:
    """Table to the rules of our chain in it, as `iptables -S` lists them; without a plan there shall be none."""
    found = {}
    for branch in BRANCHES:
        rules = _rules(plan, version, branch)
        found[branch.table] = tuple(_in_iptables(rule, branch, plan) for rule in rules)
    return found


def nft_tables(plan: FirewallPlan | None) -> Rules:
    """Table to its whole text, as `nft list table` shows it; without a plan there shall be none."""
    return {table: tuple(_nft_table(plan, version, table)) for version, table in NFT_TABLES.items()}


def _rules(plan: FirewallPlan | None, version: int, branch: Branch) -> list[_Rule]:
    share = plan.share(version) if plan else None
    if plan is None or share is None:
        return []
    if branch is MASQUERADE:
        return list(_masquerade(*share)) if plan.masquerade else []
    return [_Rule("accept", source=_Side(share[0])), _Rule("accept", destination=_Side(share[0]))] * plan.forward


def _masquerade(network: Prefix, subnet: Prefix) -> Iterator[_Rule]:
    inside, outside = _Side(network), _Side(network, outside=True)
    yield _Rule("return", marked=True)
    yield _Rule("return", _Side(subnet), inside)
    yield _Rule("return", inside, _Side(subnet))
    yield _Rule("return", outside, _Side(subnet))
    yield _Rule("masquerade", inside, _Side(_MULTICAST[network.version], outside=True))
    yield _Rule("masquerade", outside, inside)


def _in_iptables(rule: _Rule, branch: Branch, plan: FirewallPlan | None) -> str:
    words = [f"-A {branch.chain}"]
    for option, side in (("-s", rule.source), ("-d", rule.destination)):
        if side:
            words.append(f"{'! ' * side.outside}{option} {side.prefix}")
    if rule.marked:
        words.append(f"-m mark --mark {KUBE_PROXY_MARK}/{KUBE_PROXY_MARK}")
    words.append(f'-m comment --comment "{branch.comment}" -j {rule.verdict.upper()}')
    if rule.verdict == "masquerade" and plan and plan.fully_random:
        words.append("--random-fully")
    return " ".join(words)


def _nft_table(plan: FirewallPlan | None, version: int, table: str) -> Iterator[str]:
    family, _, name = table.partition(" ")
    chains = []
    for head, branch in ((_NFT_MASQUERADE, MASQUERADE), (_NFT_FORWARD, FORWARD)):
        if rules := _rules(plan, version, branch):
            chains.append((*head, *(f"\t{_in_nft(rule, family, plan)}" for rule in rules), "}"))
    if not chains:
        return
    yield f"table {table} {{"
    yield f'\tcomment "rules for {name}"'
    for number, chain in enumerate(chains):
        yield from [""] * (number > 0)
        yield from (f"\t{line}" for line in chain)
    yield "}"


def _in_nft(rule: _Rule, family: str, plan: FirewallPlan | None) -> str:
    words = []
    if rule.marked:
        mask = f"0x{int(KUBE_PROXY_MARK, 16):08x}"
        words.append(f"meta mark & {mask} == {mask}")
    for field, side in (("saddr", rule.source), ("daddr", rule.destination)):
        if side:
            words.append(f"{family} {field} {'!= ' * side.outside}{side.prefix}")
    words.append(rule.verdict)
    if rule.verdict == "masquerade" and plan and plan.fully_random:
        words.append("fully-random")
    return " ".join(words)
