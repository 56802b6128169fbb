"""Whether datagrams get through to the other nodes: each is asked, nothing is guessed.

Echo requests go through the overlay to the peer's end of it, which flanneld's hosts answer as well. They are counted:
where some come back the way is open and loses packets, which is a finding of its own. Where nothing comes back, the
peer's host is asked beside the overlay: by a plain echo whether it lives at all, and by a single byte to the UDP port
whether somebody listens there, since a closed port says so (RFC 1122 4.1.3.1), and a firewall may (RFC 1812 5.2.7.1).
Without such a word nobody can tell from here a port that is blocked from a daemon that drops what we send. A daemon
drops that byte and counts it; flanneld ignores it. A peer of which our own daemon says that it cannot be reached is not
asked: its silence is explained, and says nothing of the way there.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from udpbackend.backends.peers import tells_of
from udpbackend.doctor import peers
from udpbackend.doctor.echo import Answer, Echo
from udpbackend.doctor.facts import Facts
from udpbackend.doctor.peers import Asked, heard
from udpbackend.findings import routes
from udpbackend.findings.finding import Finding, NotChecked, Results, Severity, count, named
from udpbackend.model import Prefix
from udpbackend.observe.report import Peer

ECHOES, ROUNDS = 10, 2
"""Of small requests to each peer; a second round where nothing has come, lest bad luck be told as silence."""
LOST_LEAST = 2
"""So many of them: one alone may be a host that was busy for a second."""

KNOCK = b"\0"
KNOCKS = 2
KNOCK_S = 1.0

Port = Literal["", "closed", "refused"]
"""What the UDP port says of itself: nothing, that nobody listens, or that a firewall does not let us."""
REFUSED = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES}
"""What the kernel makes of ICMP "administratively prohibited"; of a host that is only out of reach it says nothing."""

OPEN = (
    "let that port pass in both directions in every firewall between the nodes and on them, a cloud's security groups "
    "included"
)
UNANSWERED = (
    "run `udp-backend doctor` over there: it tells if the daemon drops what this node sends (a rule that rewrites its "
    "source, SNAT or masquerade; another registry). If it does not, {} is blocked, or a firewall there drops echo "
    f"requests: {OPEN}"
)
CLOSED = "start the daemon there; if it runs, a firewall there rejects the port, or its Backend.Port is not the same"
DEAD = (
    "where all are silent, look at this node's own link and --iface first. If a peer is gone for good, delete its node "
    "or lease; if it lives, it is known by an address that this node cannot reach: choose its interface with --iface "
    "or --public-ip there, or open the way between the two"
)
LOSSY = (
    "look at the links, queues and firewalls on the way: `udp-backend ping {}` counts on, `tc -s qdisc` and `ip -s "
    "link` on both nodes show what is dropped where; a firewall's rule may drop by rate or by chance"
)


@dataclass(frozen=True, slots=True)
class Lossy:
    """A peer that answers some echoes through the overlay and not others."""

    peer: Asked
    lost: int
    asked: int

    def __str__(self) -> str:
        return f"{self.peer}, {heard(self.peer.peer)}: {self.lost} of {self.asked} echoes lost through the overlay"


@dataclass(frozen=True, slots=True)
class Silent:
    """A peer that does not answer through the overlay."""

    peer: Asked
    overlay: Answer
    host: Answer
    """Of a plain echo to its public IP."""
    port: Port

    def __str__(self) -> str:
        host = f"its host {self.host}" if self.host.came else f"its host: {self.host}"
        said = {"": "", "closed": "that nobody listens", "refused": "that a firewall prohibits it"}[self.port]
        port = said and f", its port answers {said}"
        overlay = f"{self.peer.overlay} through the overlay: {self.overlay}"
        return f"{self.peer}, {heard(self.peer.peer)}: {overlay}, {host}{port}"


async def look(facts: Facts) -> Results:
    """UDP between the nodes."""
    if facts.running is None:
        return [NotChecked(f"{facts.why_not_running}, so no peer can be asked")]
    network, interface = facts.running
    if interface.overlay_device is None:
        return [NotChecked(f"the backend {network.backend} has no device that could be asked")]
    able = [peer for peer in facts.peers if not _explained(peer, facts.report.verdict.reasons)] if facts.report else []
    chosen, unasked = peers.choose(able)
    asked, astray = await _sorted_out(facts, chosen)
    if astray:
        unasked = [*unasked, NotChecked(f"routes of others take what is sent to {named(list(map(str, astray)))}")]
    if not chosen:
        known = (
            "the daemon itself says why it reaches none of them" if facts.peers else "the daemon knows no other node"
        )
        return [NotChecked(known)]
    async with Echo() as echo:
        found = await asyncio.gather(*(_ask(echo, peer, interface.address, network.port) for peer in asked))
    silent = [it for it in found if isinstance(it, Silent)]
    lossy = [it for it in found if isinstance(it, Lossy)]
    return [*judge(silent, len(asked), network.port), *losses(lossy), *unasked]


def _explained(peer: Peer, reasons: Sequence[str]) -> bool:
    """Whether the daemon itself says that it does not reach the peer."""
    return any(tells_of(why, Prefix.parse(subnet)) for why in reasons for subnet in peer.subnets)


async def _sorted_out(facts: Facts, asked: Sequence[Asked]) -> tuple[list[Asked], list[Asked]]:
    """Those that can be asked through the overlay, and those whom somebody's route hides, which another check tells."""
    here = facts.here
    if here is None:
        return list(asked), []
    table, names = await facts.routes(), facts.names
    astray = [it for it in asked if routes.hidden(here, table, names, it.overlay)]
    return [it for it in asked if it not in astray], astray


def judge(silent: Sequence[Silent], asked: int, port: int | None) -> list[Finding]:
    """A finding for each of the four reasons."""
    closed = [it for it in silent if it.port == "closed"]
    refused = [it for it in silent if it.port == "refused"]
    dead = [it for it in silent if not it.port and not it.host.came]
    unanswered = [it for it in silent if not it.port and it.host.came]
    udp = f"UDP port {port}" if port else "the overlay"
    rows = (
        (unanswered, "the overlay of {} does not answer", UNANSWERED.format(udp)),
        (refused, f"a firewall refuses {udp} of {{}}", OPEN),
        (closed, f"nobody listens on {udp} of {{}}", CLOSED),
        (dead, "no answer at all comes from the host of {}", DEAD),
    )
    severity: Severity = "down" if len(silent) == asked > 1 else "part"
    return [
        Finding(severity, what.format(_whose(found, asked)), named(list(map(str, found))), cure)
        for found, what, cure in rows
        if found
    ]


def _whose(found: Sequence[Silent], asked: int) -> str:
    """By its name where that is short enough."""
    return str(found[0].peer) if len(found) == 1 else f"{count(len(found), 'peer')} of {asked} asked"


def losses(lossy: Sequence[Lossy]) -> list[Finding]:
    """One finding, of the peer by its name where there is but one."""
    if not lossy:
        return []
    whose = str(lossy[0].peer) if len(lossy) == 1 else count(len(lossy), "peer")
    what = f"{sum(it.lost for it in lossy)} of {sum(it.asked for it in lossy)} echoes of {whose} are lost"
    worst = max(lossy, key=lambda it: it.lost / it.asked).peer.peer
    cure = LOSSY.format(worst.node or worst.public_ip)
    return [Finding("part", what, named(list(map(str, lossy))), cure)]


async def _ask(echo: Echo, peer: Asked, address: str, port: int | None) -> Silent | Lossy | None:
    answers: list[Answer] = []
    for _ in range(ROUNDS):
        answers += await echo.several(peer.overlay, ECHOES)
        lost = sum(not it.came for it in answers)
        if lost < len(answers):
            return Lossy(peer, lost, len(answers)) if lost >= LOST_LEAST else None
    port = peer.peer.port or port
    host, said = await asyncio.gather(echo.ask(peer.public_ip), _knock(address, str(peer.public_ip), port))
    return Silent(peer, answers[-1], host, said)


async def _knock(address: str, public_ip: str, port: int | None) -> Port:
    """What the port says. Asked from the daemon's address, so that filters treat it alike."""
    if port is None:
        return ""
    knocked = False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as knocking:
        try:
            knocking.bind((address, 0))
            knocking.connect((public_ip, port))
            for _ in range(KNOCKS):
                knocking.send(KNOCK)
                knocked = True
                try:
                    async with asyncio.timeout(KNOCK_S):
                        await asyncio.get_running_loop().sock_recv(knocking, 1)
                except TimeoutError:
                    continue
        except ConnectionRefusedError:
            return "closed"
        except OSError as error:  # if it was never sent, the echo beside this says why
            return "refused" if knocked and error.errno in REFUSED else ""
    return ""
