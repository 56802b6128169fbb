"""Rules of iptables and of nftables as one packet sees them: does a rule meet it, and what does it do then.

Owns the reading of both languages, as far as it takes to follow a forwarded packet. Pure. What is asked for and not
known here makes a rule one that may meet the packet or not; nothing is guessed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from udpbackend.host.forward_path import Action, Chain, Packet, Rule

IPTABLES_ACTIONS: Mapping[str, Action] = {
    "ACCEPT": "accept",
    "DROP": "end",
    "REJECT": "end",
    "RETURN": "return",
    **dict.fromkeys(("LOG", "NFLOG", "MARK", "CONNMARK", "SECMARK", "CONNSECMARK", "TCPMSS", "SET", "TEE", ""), "pass"),
    **dict.fromkeys(("CT", "TRACE", "AUDIT", "CHECKSUM", "CLASSIFY", "TTL", "HL", "DSCP", "TOS", "ECN"), "pass"),
    **dict.fromkeys(("NFQUEUE", "QUEUE", "SYNPROXY"), "unknown"),
}
NFT_ACTIONS: Mapping[str, Action] = {
    "accept": "accept",
    "drop": "end",
    "reject": "end",
    "return": "return",
    "queue": "unknown",
    "vmap": "unknown",
    "xt": "unknown",
}
NFT_PASSES = frozenset(("counter", "log", "mangle", "notrack", "comment", "meter", "add", "update"))
"""Statements that decide nothing."""

PORTS = {"sport": 40961, "dport": 20483}
"""Of the packet: two that no rule is about, so that one for a port of its own does not speak for all packets."""

Meets = bool | None


def iptables_chain(listed: str, packet: Packet) -> Chain:
    """A chain as `iptables -S CHAIN` lists it."""
    policy: Action = "return"
    rules = []
    for line in listed.splitlines():
        if line.startswith("-P "):
            policy = IPTABLES_ACTIONS.get(line.split()[-1], "unknown")
        elif line.startswith("-A "):
            rules.append(iptables_rule(line, packet))
    return Chain(rules, policy)


def iptables_rule(line: str, packet: Packet) -> Rule:
    """A line of it."""
    try:
        words = iter(shlex.split(line)[2:])
    except ValueError:
        return Rule(None, "unknown", text=line)
    met: list[Meets] = []
    negated = False
    for word in words:
        if word == "!":
            negated = True
            continue
        if word in ("-j", "--jump", "-g", "--goto"):
            target = next(words, "")
            chain: Action = "goto" if word in ("-g", "--goto") else "jump"
            return Rule(_all(met), IPTABLES_ACTIONS.get(target, chain), target, line)
        if word in ("-m", "--match", "--comment"):
            next(words, "")
            continue
        if word.startswith("-"):
            value = next(words, "") if word in _IPTABLES else ""
            found = _IPTABLES[word](value, packet) if word in _IPTABLES else None
            met.append(None if found is None else found is not negated)
            negated = False
    return Rule(_all(met), "pass", text=line)


_IPTABLES: Mapping[str, Callable[[str, Packet], Meets]] = {
    "-s": lambda value, packet: _within(packet.source, [value]),
    "-d": lambda value, packet: _within(packet.destination, [value]),
    "-i": lambda value, packet: _named(packet.came, [value]),
    "-o": lambda value, packet: _named(packet.leaves, [value]),
    "-p": lambda value, _: value in ("tcp", "all", "6", "0"),
    "--ctstate": lambda value, _: "NEW" in value.split(","),
    "--state": lambda value, _: "NEW" in value.split(","),
    "--dst-type": lambda value, _: value == "UNICAST",  # what is for this host itself is not forwarded
    "--dport": lambda value, _: _ported("dport", value),
    "--sport": lambda value, _: _ported("sport", value),
    "--dports": lambda value, _: _ported("dport", value),
    "--sports": lambda value, _: _ported("sport", value),
}


def nft_chain(listed: Sequence[Mapping[str, Any]], name: str, packet: Packet) -> Chain:
    """A chain of a table as `nft -j list` gives its objects, those of the other chains left aside.

    The text of a rule is its handle, by which its words are found.
    """
    policy: Action = "return"
    rules = []
    for item in listed:
        chain, rule = item.get("chain"), item.get("rule")
        if chain and chain.get("name") == name and "hook" in chain:
            policy = NFT_ACTIONS.get(chain.get("policy", "accept"), "unknown")
        elif rule and rule.get("chain") == name:
            rules.append(nft_rule(rule.get("expr", []), packet)._replace(text=f"# handle {rule.get('handle')}"))
    return Chain(rules, policy)


def nft_rule(statements: Iterable[Mapping[str, Any]], packet: Packet) -> Rule:
    """The statements of a rule."""
    met: list[Meets] = []
    for statement in statements:
        for kind, value in statement.items():
            if kind == "match":
                met.append(_nft_match(value, packet))
            elif kind in ("jump", "goto"):
                return Rule(_all(met), "jump" if kind == "jump" else "goto", value.get("target", ""))
            elif kind in NFT_ACTIONS:
                return Rule(_all(met), NFT_ACTIONS[kind])
            elif kind not in NFT_PASSES:
                met.append(None)  # a limit, a quota, a set: it may end the rule or not
    return Rule(_all(met), "pass")


def _nft_match(match: Mapping[str, Any], packet: Packet) -> Meets:
    left = match.get("left")
    if not isinstance(left, Mapping) or len(left) != 1:
        return None
    [(kind, about)] = left.items()
    values = list(_flat(match.get("right")))
    if not isinstance(about, Mapping):
        return None
    found = (
        _nft_payload(about, values, packet) if kind == "payload" else _nft_key(kind, about.get("key"), values, packet)
    )
    return None if found is None else found is not (match.get("op") == "!=")


def _nft_key(kind: str, key: object, values: Sequence[Any], packet: Packet) -> Meets:
    known: Mapping[tuple[str, object], Callable[[], Meets]] = {
        ("meta", "iifname"): lambda: _named(packet.came, values),
        ("meta", "oifname"): lambda: _named(packet.leaves, values),
        ("meta", "iif"): lambda: _named(packet.came, values),
        ("meta", "oif"): lambda: _named(packet.leaves, values),
        ("meta", "l4proto"): lambda: _listed("tcp", values),
        ("meta", "nfproto"): lambda: _listed(f"ipv{packet.source.version}", values),
        ("ct", "state"): lambda: _listed("new", values),
    }
    asked = known.get((kind, key))
    return asked() if asked else None


def _nft_payload(about: Mapping[str, Any], values: Sequence[Any], packet: Packet) -> Meets:
    protocol, field = about.get("protocol"), about.get("field")
    if protocol in ("udp", "udplite", "icmp", "icmpv6", "sctp", "dccp"):
        return False
    if protocol in ("tcp", "th") and field in PORTS:
        return _listed(PORTS[field], values)
    if protocol != ("ip" if packet.source.version == 4 else "ip6"):
        return False if protocol in ("ip", "ip6") else None
    if field in ("saddr", "daddr"):
        return _within(packet.source if field == "saddr" else packet.destination, values)
    return _listed("tcp", values) if field == "protocol" else None


def _flat(right: Any) -> Iterator[Any]:
    """The values of the right side, each by itself; one that cannot be read is None."""
    if isinstance(right, Mapping) and "set" in right:
        right = right["set"]
    for it in right if isinstance(right, list) else [right]:
        match it:
            case {"prefix": {"addr": str(address), "len": int(bits)}}:
                yield f"{address}/{bits}"
            case {"range": [str(first), str(last)]}:
                yield (first, last)
            case {"range": [int(first), int(last)]}:
                yield from (port for port in PORTS.values() if first <= port <= last)
            case str() if not it.startswith("@"):
                yield it
            case int():
                yield it
            case _:
                yield None


def _within(address: Any, values: Sequence[Any]) -> Meets:
    """Whether it lies in one of these networks or ranges."""
    unknown = False
    for value in values:
        try:
            if isinstance(value, tuple):
                first, last = map(ip_address, value)
                if first.version == address.version and int(first) <= int(address) <= int(last):
                    return True
            elif address in ip_network(value, strict=False):
                return True
        except (TypeError, ValueError):
            unknown = True
    return None if unknown else False


def _named(device: str, values: Sequence[Any]) -> Meets:
    """Whether a device has one of these names; iptables writes + for any end of a name, nft *."""
    if any(
        it == device or (it.endswith(("+", "*")) and device.startswith(it[:-1])) for it in values if isinstance(it, str)
    ):
        return True
    return None if None in values else False


def _listed(word: str | int, values: Sequence[Any]) -> Meets:
    return True if word in values else None if None in values else False


def _ported(which: str, value: str) -> bool:
    """Whether the packet's port is in a list of ports and ranges, as iptables writes them."""
    ranges = (it.partition(":") for it in value.split(",") if ":" in it)
    return any(_number(first, 0) <= PORTS[which] <= _number(last, 65535) for first, _, last in ranges)


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isdecimal() else otherwise


def _all(met: Sequence[Meets]) -> Meets:
    """Whether a rule meets a packet, from its conditions."""
    if False in met:
        return False
    return None if None in met else True
