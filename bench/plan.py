"""What is measured: groups of systems, workloads, links and paths, and the named selections of them. Pure.

Owns the selections `quick`, `floors`, `busy`, `full` and `all`. Must not know how anything is measured or how long
a run takes, beyond what a workload says about itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from bench import links, systems, workloads
from bench.systems import System
from bench.workloads import Workload

SET_UP_S = 2.5
"""A laboratory with a running system, about."""
READ_S = 0.1
"""Counters before and after a run."""


@dataclass(frozen=True)
class Group:
    """Systems that are measured in turn, with each of some workloads, in one place."""

    systems: tuple[str, ...]
    link: str
    path: str
    workloads: tuple[str, ...]
    mtu: int = 1500
    hogs: int = 0
    """Endless loops that run beside all of it."""

    def turns(self, workload: str) -> tuple[str, ...]:
        """The systems that this workload suits, in their order."""
        return tuple(name for name in self.systems if workloads.BY_NAME[workload].suits(name))

    def runs(self) -> Iterator[tuple[Workload, str]]:
        """Every workload with every system that it suits."""
        for name in self.workloads:
            for system in self.turns(name):
                yield workloads.BY_NAME[name], system

    def beside(self, twins: Mapping[str, str]) -> "Group":
        """Each of these systems is followed by its twin."""
        names = ([name, twins[name]] if twins.get(name, name) not in self.systems else [name] for name in self.systems)
        return replace(self, systems=tuple(chain.from_iterable(names)))

    def available(self, skipped: Sequence[str]) -> "Group":
        """Without what cannot be measured, or not on this path."""
        names = (name for name in self.systems if name not in skipped and self.path in systems.BY_NAME[name].paths)
        return replace(self, systems=tuple(names))


@dataclass(frozen=True)
class Plan:
    """Everything one run of the bench does."""

    groups: tuple[Group, ...]
    pairs: int
    seconds: int
    cc: str = "cubic"

    def systems(self) -> dict[str, type[System]]:
        """All of them, in the order of the list of systems."""
        wanted = {name for group in self.groups for name in group.systems}
        return {name: system for name, system in systems.BY_NAME.items() if name in wanted}

    def without(self, skipped: Sequence[str]) -> "Plan":
        """Without systems that cannot be measured; a group that nothing is left of goes."""
        groups = (group.available(skipped) for group in self.groups)
        return replace(self, groups=tuple(group for group in groups if group.systems))

    def through_daemon(self) -> "Plan":
        """With vxlan and host-gw a second time wherever they are measured, set up by our daemon, and in turn."""
        return self.beside({name: twin.name for name, twin in systems.THROUGH_DAEMON.items()})

    def beside(self, twins: Mapping[str, str]) -> "Plan":
        """With a twin, measured in turn, wherever one of these systems is measured."""
        return replace(self, groups=tuple(group.beside(twins) for group in self.groups))

    def cost_s(self) -> float:
        """How long it takes about."""
        runs = sum(workload.cost_s(self.seconds) + READ_S for group in self.groups for workload, _ in group.runs())
        beds = {(system, group.mtu) for group in self.groups for system in group.systems}
        return self.pairs * runs + SET_UP_S * len(beds)


def quick() -> Plan:
    """The core ratios in at most 100 seconds."""
    both = ("vxlan", "udp")
    return Plan(
        groups=(
            Group(both, "pass-through", "host-host", ("tcp-1", "tcp-4", "pingpong")),
            Group(both, "wire", "host-host", ("tcp-1", "tcp-4", "udp-64")),
        ),
        pairs=3,
        seconds=2,
    )


def full() -> Plan:
    """The rows that the line-rate work is judged by, and a short list beside them; at most 40 minutes.

    All systems meet in four cells, one for each kind of figure; the rest is measured with VXLAN and our own only.
    """
    both, all_of_them = ("vxlan", "udp"), (*systems.OVERLAYS, "udp-bare-loop")
    plain, wire, alone = links.NAMES
    sizes = tuple(system.name for system in systems.SCALED)
    return Plan(
        groups=(
            Group(all_of_them, plain, "host-host", ("tcp-1", "pingpong")),
            Group(all_of_them, wire, "host-host", ("tcp-1", "udp-64")),
            Group(both, wire, "host-host", ("tcp-4", "udp-1400", "udp-64-no-loss", "udp-1400-no-loss")),
            Group(both, wire, "host-host", ("udp-512", "pingpong-at-50", "pingpong-at-90", "pingpong-under-tcp")),
            Group(both, alone, "host-host", ("tcp-1",)),
            Group(both, plain, "host-host", ("tcp-4", "tcp-16", "tcp-1-reverse", "connect")),
            Group(both, plain, "pod-pod", ("tcp-1", "tcp-4", "connect")),
            Group(both, wire, "host-host", ("tcp-1",), mtu=9000),
            Group(("vxlan", *sizes), wire, "host-host", ("tcp-1", "pingpong", "publish")),
        ),
        pairs=5,
        seconds=3,
    )


def floors() -> Plan:
    """The rows that a floor is set for, VXLAN and our own alone: soon done, so that nothing need disturb them.

    But for the rates without loss: to search for them takes as long as all of these.
    """
    both = ("vxlan", "udp")
    plain, wire, alone = links.NAMES
    return Plan(
        groups=(
            Group(both, plain, "host-host", ("tcp-1", "tcp-4", "pingpong")),
            Group(both, plain, "pod-pod", ("tcp-1", "tcp-4")),
            Group(both, wire, "host-host", ("tcp-1", "tcp-4", "udp-64", "udp-1400")),
            Group(both, alone, "host-host", ("tcp-1",)),
            Group(both, wire, "host-host", ("tcp-1",), mtu=9000),
        ),
        pairs=5,
        seconds=2,
    )


def busy(cores: int) -> Plan:
    """A host with other work on its cores: as many endless loops as there are, and twice as many; in twelve minutes.

    And one stream without them, because what a priority is worth shows only beside that.
    """
    three, both = ("vxlan", "udp", systems.ORDINARY), ("vxlan", "udp")
    ends = links.NAMES[:2]
    traffic = ("tcp-1", "tcp-4", "udp-1400", "pingpong")
    return Plan(
        groups=(
            *(Group(three, link, "host-host", ("tcp-1",)) for link in ends),
            *(Group(three, link, "host-host", traffic, hogs=cores) for link in ends),
            *(Group(both, link, "host-host", traffic, hogs=2 * cores) for link in ends),
        ),
        pairs=5,
        seconds=2,
    )


def combined(
    names: Sequence[str], on: Sequence[str], paths: Sequence[str], traffic: Sequence[str], mtus: Sequence[int]
) -> Plan:
    """Every combination of these."""
    return Plan(
        groups=tuple(
            Group(tuple(names), link, path, tuple(traffic), mtu) for mtu in mtus for link in on for path in paths
        ),
        pairs=5,
        seconds=5,
    )


def everything() -> Plan:
    """Every combination there is; a day."""
    return combined(tuple(systems.BY_NAME), links.NAMES, tuple(systems.PATHS), tuple(workloads.BY_NAME), (1500, 9000))
