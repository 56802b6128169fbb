"""What leads to the peers, as it is wanted and as the kernel has it, and the few requests from the one to the other.

Owns the comparison (`plan`, pure) and the order in which the difference is made up for. Must not know leases: a `Way`
is a route and what it needs. What it must leave alone it knows by our protocol number, by the network the route leads
into, and by the device whose neighbours and forwarding entries are all ours.

Theory of operation: what the kernel has is dumped in three answers, whatever the number of peers, and compared; where
nothing differs nothing is written. What a way needs comes before its route, so that a route that leads somewhere can
deliver; where the route is refused, the rest of its way is taken back. Routes to peers that are gone go first of all,
what they needed goes last: no packet ever meets a route whose neighbour is missing.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress

from udpbackend.errors import HostError
from udpbackend.host.bulk import Answer, Bulk
from udpbackend.host.entries import (
    Entry,
    Forward,
    Neighbour,
    Route,
    dump_forwards,
    dump_neighbours,
    dump_routes,
    read_forward,
    read_neighbour,
    read_route,
)
from udpbackend.model import Prefix

WORDS = {Route: "route", Neighbour: "neighbour entry", Forward: "forwarding entry"}
PLURALS = {"route": "routes", "neighbour entry": "neighbour entries", "forwarding entry": "forwarding entries"}

GONE = (errno.ESRCH, errno.ENOENT)
"""What the kernel says to the deletion of what is not there: somebody else was faster."""


@dataclass(frozen=True, slots=True)
class Way:
    """How one subnet is reached: the route, and what that needs, in the order in which it is made."""

    route: Route
    needs: tuple[Neighbour, Forward] | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What of the kernel's tables is ours."""

    network: Prefix
    """Our routes lead to subnets of it; those of another network are another daemon's."""
    device: int = 0
    """Its permanent neighbours inside `network` and its permanent forwarding entries are ours; 0: there is none."""

    def holds(self, address: bytes) -> bool:
        """Whether an address lies inside the network."""
        return self.network.address <= int.from_bytes(address, "big") <= self.network.last


@dataclass(frozen=True, slots=True)
class Seen:
    """What the kernel has, of all that is ours."""

    routes: Sequence[Route] = ()
    neighbours: Sequence[Neighbour] = ()
    forwards: Sequence[Forward] = ()


@dataclass(slots=True)
class Plan:
    """The difference, in the order in which it is made up for; `missing` and `routes` name their way by its place."""

    gone: list[Route] = field(default_factory=list)
    missing: list[tuple[int, Entry]] = field(default_factory=list)
    routes: list[tuple[int, Entry]] = field(default_factory=list)
    stale: list[Entry] = field(default_factory=list)


@dataclass(slots=True)
class Outcome:
    """What was done, and what the kernel has refused."""

    added: list[Entry] = field(default_factory=list)
    removed: list[Entry] = field(default_factory=list)
    refused: dict[int, OSError] = field(default_factory=dict)
    """The place of a way -> the kernel's reason, its text with what could not be added."""
    stays: list[str] = field(default_factory=list)
    """What should be gone and is not, in words with the kernel's reason; the next look tries again."""

    def words(self) -> tuple[str, ...]:
        """What was done, in words; nothing if that was nothing."""
        return (*_counted("added", self.added), *_counted("removed", self.removed))


def reconcile(bulk: Bulk, scope: Scope, ways: Sequence[Way]) -> Outcome:
    """Makes the kernel have exactly these ways. A refusal is the way's own; OSError if the tables cannot be read."""
    wanted = plan(ways, look(bulk, scope))
    outcome = Outcome()
    _delete(bulk, wanted.gone, outcome)
    _add(bulk, wanted.missing, outcome)
    _add(bulk, [(place, route) for place, route in wanted.routes if place not in outcome.refused], outcome)
    if outcome.refused:
        _take_back(bulk, ways, outcome)
    _delete(bulk, wanted.stale, outcome)
    return outcome


def look(bulk: Bulk, scope: Scope) -> Seen:
    """What the kernel has."""
    version = scope.network.version
    routes = [route for body in bulk.dump(dump_routes(version)) if (route := read_route(body))]
    neighbours: list[Neighbour] = []
    forwards: list[Forward] = []
    if scope.device:
        found = (read_neighbour(body) for body in bulk.dump(dump_neighbours(version, scope.device)))
        neighbours = [it for it in found if it and it.link == scope.device and scope.holds(it.address)]
        entries = (read_forward(body) for body in bulk.dump(dump_forwards(scope.device)))
        forwards = [it for it in entries if it and it.link == scope.device]
    return Seen([it for it in routes if scope.holds(it.base) and it.bits >= scope.network.bits], neighbours, forwards)


def plan(ways: Sequence[Way], seen: Seen) -> Plan:
    """What differs. Of two routes to one subnet the kernel has room for, ours takes the place of the other."""
    found = Plan()
    routes, neighbours, forwards = set(seen.routes), set(seen.neighbours), set(seen.forwards)
    destinations, addresses, macs = set(), set(), set()
    for place, way in enumerate(ways):
        destinations.add(_destination(way.route))
        if way.route not in routes:
            found.routes.append((place, way.route))
        if way.needs:
            neighbour, forward = way.needs
            addresses.add(neighbour.address)
            macs.add(forward.mac)
            if neighbour not in neighbours:
                found.missing.append((place, neighbour))
            if forward not in forwards:
                found.missing.append((place, forward))
    found.gone = [route for route in seen.routes if _destination(route) not in destinations]
    found.stale += [it for it in seen.neighbours if it.address not in addresses]
    found.stale += [it for it in seen.forwards if it.mac not in macs]
    return found


def remove(bulk: Bulk, scope: Scope) -> None:
    """Deletes all that is ours. Raises HostError if something of it stays."""
    _refuse(reconcile(bulk, scope, ()).stays)


def delete(bulk: Bulk, entries: Sequence[Entry]) -> None:
    """Deletes these. Raises HostError if one of them stays."""
    _refuse(_stays(entries, bulk.exchange([entry.delete() for entry in entries])))


def _refuse(stays: Sequence[str]) -> None:
    if stays:
        more = f", and {len(stays) - 1} more" if len(stays) > 1 else ""
        raise HostError(f"{stays[0]}{more}")


def _destination(route: Route) -> tuple[bytes, int, int]:
    """What only one route can have: the kernel replaces by it."""
    return route.base, route.bits, route.metric


def _add(bulk: Bulk, entries: Sequence[tuple[int, Entry]], outcome: Outcome) -> None:
    answers = bulk.exchange([entry.add() for _, entry in entries])
    for (place, entry), answer in zip(entries, answers, strict=True):
        if isinstance(answer, OSError):
            outcome.refused.setdefault(place, OSError(answer.errno, f"cannot add the {entry}: {answer.strerror}"))
        else:
            outcome.added.append(entry)


def _delete(bulk: Bulk, entries: Sequence[Entry], outcome: Outcome) -> None:
    """Deletes what it can."""
    answers = bulk.exchange([entry.delete() for entry in entries])
    outcome.removed += compress(entries, [not isinstance(answer, OSError) for answer in answers])
    outcome.stays += _stays(entries, answers)


def _stays(entries: Sequence[Entry], answers: Sequence[Answer]) -> list[str]:
    """Words for what was not deleted though it is there."""
    return [
        f"cannot remove the {entry}: {answer.strerror}"
        for entry, answer in zip(entries, answers, strict=True)
        if isinstance(answer, OSError) and answer.errno not in GONE
    ]


def _take_back(bulk: Bulk, ways: Sequence[Way], outcome: Outcome) -> None:
    """Deletes what refused ways need, but for what others need too."""
    needed: dict[bool, set[Entry]] = {False: set(), True: set()}
    for place, way in enumerate(ways):
        needed[place in outcome.refused].update(way.needs or ())
    back = needed[True] - needed[False]
    bulk.exchange([entry.delete() for entry in back])
    outcome.added = [entry for entry in outcome.added if entry not in back]


def _counted(verb: str, entries: Sequence[Entry]) -> tuple[str, ...]:
    if not entries:
        return ()
    if len(entries) == 1:
        return (f"{verb} the {entries[0]}",)
    counts = Counter(WORDS[type(entry)] for entry in entries)
    return (
        f"{verb} " + ", ".join(f"{count} {PLURALS[word] if count > 1 else word}" for word, count in counts.items()),
    )
