"""Who may send packets into an overlay that the kernel carries: nf_tables rules for the FOU port.

Owns the tables `udpbackend-<port>` of both IP versions, which are ours alone: their text, the set of peers in them, and
how they are kept right. Must not know leases. Blocks; for threads.

What the kernel can be asked to see, where the userspace dataplane sees all: that a datagram's outer source is some
peer's, and that its inner source is some peer's too (rp_filter for IPv4, which is `fou_link`'s; a rule here for IPv6).
That both are the same peer's it cannot. The device would also take packets that come in no datagram at all, IP in IP:
they are dropped but for the remote ends of other tunnels of this host. And whatever is checked: a GUE port takes GUE of
version 0 as well, by which any protocol, TCP to this host for example, would come in past the host's own rules.

Theory of operation: the tables are written as one transaction, so a packet meets the old rules or the new ones; later
changes of the peers add and delete elements of the set, in one transaction each. The kernel's generation of its rules
tells whether anybody has changed anything; only then are ours read, and the longer that takes, the seldomer it is done.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from udpbackend.errors import HostError
from udpbackend.host import firewall_program
from udpbackend.host.bulk import Bulk
from udpbackend.host.entries import DUMP, Request, attributes
from udpbackend.host.firewall_program import Ended
from udpbackend.host.generation import FAMILY, SUBSYSTEM, generation

PROGRAM = "nft"
NAMES = "udpbackend-"
NETLINK_NETFILTER = 12
GET_TABLE = SUBSYSTEM << 8 | 1
"""linux/netfilter/nf_tables.h: NFT_MSG_GETTABLE."""
TABLE_NAME = 1
NO_TABLES = (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
"""What a kernel without nf_tables says, or to who has no right to any."""
FAMILIES = {2: "ip", 10: "ip6"}
"""NFPROTO_IPV4 and NFPROTO_IPV6."""
NO_TABLE = "No such file or directory"
REST = 20
"""So many times as long as a reading took, nothing is read again: it shall never be a twentieth of a core."""
LINE = 16
"""Addresses in a line of what nft reads."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the rules are to let in."""

    local: IPv4Address
    port: int
    peers: frozenset[bytes]
    """Outer addresses, in network byte order."""
    tunnels: frozenset[bytes] = frozenset()
    """Where other tunnels of this host get IP in IP from."""
    check: bool = True
    """Whether it matters where a packet comes from."""
    device6: str | None = None
    """The device with IPv6 inside."""


class Guard:
    """`settle` as often as one likes, `remove` at the end."""

    def __init__(self) -> None:
        self._settled: Wanted | None = None
        self._generation: int | None = None
        self._printed: tuple[str, ...] = ()
        """The tables without their elements, as nft prints them."""
        self._rested_at = 0.0

    def settle(self, wanted: Wanted) -> tuple[str, ...]:
        """Makes the rules what they should be: what had differed. Raises HostError."""
        before = self._settled
        if before is None:
            self._write(wanted)
            return ("made the rules for what is let in",)
        if _rest(wanted) != _rest(before):
            self._write(wanted)
        elif wanted.peers != before.peers and not self._change(wanted, before):
            self._write(wanted)
            return ("the rules for what is let in were gone",)
        elif (now := generation()) is None or now != self._generation:
            return self._verify(wanted, now)
        return ()

    def _verify(self, wanted: Wanted, now: int | None) -> tuple[str, ...]:
        """Reads the rules, and makes them anew where they are not ours any more."""
        began = time.monotonic()
        if began < self._rested_at:
            return ()
        right = _print(wanted.port) == self._printed and _peers(wanted.port) == wanted.peers
        self._rested_at = time.monotonic() + REST * (time.monotonic() - began)
        if right:
            self._generation = now
            return ()
        self._write(wanted)
        return ("the rules for what is let in had been changed",)

    def _write(self, wanted: Wanted) -> None:
        self._settled = None
        done = firewall_program.run(PROGRAM, "-f", "-", text="".join(f"{line}\n" for line in text(wanted)))
        if done.status != 0:
            raise done.failure("make the rules for what is let in")
        self._note(wanted)
        self._printed = _print(wanted.port)

    def _change(self, wanted: Wanted, before: Wanted) -> bool:
        """Changes the peers alone; False where the set is not as it was left."""
        lines = [
            *_elements("add", wanted.port, wanted.peers - before.peers),
            *_elements("delete", wanted.port, before.peers - wanted.peers),
        ]
        done = firewall_program.run(PROGRAM, "-f", "-", text="".join(f"{line}\n" for line in lines))
        if done.status == 0:
            self._note(wanted)
        return done.status == 0

    def _note(self, wanted: Wanted) -> None:
        self._settled = wanted
        self._generation = None  # somebody else may have changed something meanwhile: it is read once more


def require() -> None:
    """Raises HostError where the rules cannot be made."""
    firewall_program.require(PROGRAM, "the kernel's dataplane needs")


def tables(port: int) -> tuple[str, str]:
    """The family and the name of both tables of a port."""
    return f"ip {NAMES}{port}", f"ip6 {NAMES}{port}"


def remove(port: int | None = None) -> tuple[str, ...]:
    """Takes the tables of a port, or of all, away; which there were. Raises HostError."""
    found = leftovers(port)
    for table in found:
        firewall_program.require(PROGRAM, "to remove its tables the kernel's dataplane needs")
        done = _nft("delete", "table", *table.split())
        if done.status != 0 and NO_TABLE not in done.err:
            raise done.failure(f"remove the nftables table {table}")
    return tuple(f"nftables table {table}" for table in found)


def leftovers(port: int | None = None) -> tuple[str, ...]:
    """The tables that there are of a port, or of all; no program is run for it. Raises HostError."""
    try:
        with Bulk(NETLINK_NETFILTER) as bulk:
            found = [_named(body) for body in bulk.dump(Request(GET_TABLE, DUMP, FAMILY.pack(0, 0, 0)))]
    except OSError as error:
        if error.errno in NO_TABLES:
            return ()
        raise HostError(f"cannot read the tables of nftables: {error.strerror or error}") from error
    wanted = None if port is None else tables(port)
    return tuple(it for it in found if it and (wanted is None or it in wanted))


def _named(body: bytes) -> str:
    """Family and name of a table of ours in a dump; empty for another one."""
    family = FAMILIES.get(FAMILY.unpack_from(body)[0])
    name = dict(attributes(body, FAMILY.size)).get(TABLE_NAME, b"").rstrip(b"\0").decode(errors="replace")
    return f"{family} {name}" if family and name.startswith(NAMES) else ""


def text(wanted: Wanted) -> Iterator[str]:
    """What `nft -f -` is to read, so that both tables become what is wanted."""
    table4, table6 = tables(wanted.port)
    for table in (table4, table6):  # to delete one it has to be there
        yield f"table {table}"
        yield f"delete table {table}"
    here = f"ip daddr {wanted.local}"
    yield f"table {table4} {{"
    yield "set peers { type ipv4_addr; size 131072; }"
    yield "set tunnels { type ipv4_addr; }"
    yield "chain input {"
    yield "type filter hook input priority filter; policy accept;"
    yield f"{here} udp dport {wanted.port} @th,64,4 != {{ 4, 6 }} counter drop"
    if wanted.check:
        yield f"{here} udp dport {wanted.port} ip saddr != @peers counter drop"
        yield f"{here} ip protocol {{ 4, 41 }} ip saddr != @tunnels counter drop"
    yield "}"
    yield "}"
    if wanted.check and wanted.device6 is not None:
        yield f"table {table6} {{"
        yield "chain prerouting {"
        yield "type filter hook prerouting priority raw; policy accept;"
        yield f'iifname "{wanted.device6}" fib saddr . iif oif missing counter drop'
        yield "}"
        yield "}"
    yield from _elements("add", wanted.port, wanted.peers)
    yield from _elements("add", wanted.port, wanted.tunnels, "tunnels")


def _elements(verb: str, port: int, addresses: frozenset[bytes], of: str = "peers") -> Iterator[str]:
    """A command for each line of addresses."""
    shown = [str(IPv4Address(it)) for it in sorted(addresses)]
    for start in range(0, len(shown), LINE):
        yield f"{verb} element {tables(port)[0]} {of} {{ {', '.join(shown[start : start + LINE])} }}"


def _rest(wanted: Wanted) -> tuple[object, ...]:
    return wanted.local, wanted.port, wanted.tunnels, wanted.check, wanted.device6


def _print(port: int) -> tuple[str, ...]:
    """Both tables without elements of sets and counts of counters."""
    return tuple(
        line
        for table in tables(port)
        for line in _nft("--stateless", "--terse", "list", "table", *table.split()).out.splitlines()
    )


def _peers(port: int) -> frozenset[bytes]:
    """The elements of the set."""
    done = _nft("--json", "list", "set", *tables(port)[0].split(), "peers")
    return peers_in(done.out) if done.status == 0 else frozenset()


def peers_in(listed: str) -> frozenset[bytes]:
    """The addresses in what `nft --json list set` prints; what is no address there is none of ours."""
    found: set[bytes] = set()
    for part in json.loads(listed).get("nftables", ()):
        elements: Sequence[object] = part.get("set", {}).get("elem", ())
        found.update(IPv4Address(it).packed if isinstance(it, str) else b"" for it in elements)
    return frozenset(found)


def _nft(*arguments: str) -> Ended:
    return firewall_program.run(PROGRAM, *arguments)
