"""Carries out a plan: beds are set up, systems measured in turn, and every figure goes into the document.

Owns the order of runs (round by round, the reference first), the reading of counters around each, and the verdict of
the proof. Must not know what a workload or a system is made of.
"""

from collections.abc import Iterable
from contextlib import ExitStack

from bench import bed, proof, surroundings, workloads
from bench.bed import Bed
from bench.lab.hogs import hogs
from bench.lab.wait import LabError
from bench.plan import READ_S, SET_UP_S, Group, Plan
from bench.progress import Progress
from bench.result import Cell, Document
from bench.systems import BY_NAME
from bench.workloads import Context, Outcome, Workload

TRIES = 2
"""A run that fails (a connection that timed out on a busy machine) is made once more before it ends the bench."""


class Campaign:
    """One run of the bench; a context, because the beds live until it ends."""

    def __init__(self, plan: Plan, document: Document, progress: Progress, cc: str) -> None:
        self._plan = plan
        self._document = document
        self._progress = progress
        self._cc = cc
        self._beds: dict[tuple[str, int], Bed] = {}
        self._round = 0
        self._no_loss: dict[tuple[str, str, str, int], dict[int, list[float]]] = {}
        self._stack = ExitStack()

    def run(self) -> None:
        """All of the plan."""
        with self._stack:
            for group in self._plan.groups:
                self._prepare(group)
                with hogs(group.hogs):
                    for name in group.workloads:
                        self._rounds(group, workloads.BY_NAME[name])

    def _prepare(self, group: Group) -> None:
        """The beds of a group, and no others: what stands idle still costs now and then."""
        wanted = [(system, group.mtu) for system in group.systems]
        if any(key not in wanted for key in self._beds) and any(mtu != group.mtu for _, mtu in self._beds):
            self._stack.close()
            self._beds.clear()
        for key in wanted:
            if key not in self._beds:
                self._progress.step(f"setting up {key[0]}, MTU {group.mtu}", SET_UP_S)
                self._beds[key] = self._stack.enter_context(Bed(BY_NAME[key[0]], group.mtu, self._cc))
            self._beds[key].set_link(group.link)

    def _rounds(self, group: Group, workload: Workload) -> None:
        cell = Cell(group.link, group.path, group.mtu, self._cc, workload.row, group.hogs)
        for number in range(1, self._plan.pairs + 1):
            self._round += 1
            for system in group.turns(workload.name):
                self._progress.step(
                    f"{cell.words()}: {system}, {number} of {self._plan.pairs}",
                    workload.cost_s(self._plan.seconds) + READ_S,
                )
                self._one(self._beds[system, group.mtu], cell, workload)

    def _one(self, stand: Bed, cell: Cell, workload: Workload) -> None:
        series = self._document.of(cell, stand.system.name)
        if not series.surroundings:
            series.encrypted = stand.system.encrypted
            series.surroundings = {**stand.surroundings(cell.path), "load_before": surroundings.load()}
        outcome, used = self._tried(stand, cell, workload)
        complaint = proof.missing(outcome.forth_bytes, outcome.back_bytes, used.here, used.there)
        if complaint:
            series.complaints.append(complaint)
            self._progress.say(f"NO PROOF for {stand.system.name}, {cell.words()}: {complaint}")
        series.add(self._round, {**outcome.values, **costs(outcome, used, alone=not cell.hogs)})

    def _tried(self, stand: Bed, cell: Cell, workload: Workload) -> tuple[Outcome, bed.Usage]:
        """One run between two readings."""
        way = stand.system.way(cell.path)
        known = self._no_loss.setdefault((stand.system.name, cell.link, cell.path, cell.mtu), {})
        context = Context(self._plan.seconds, stand.system, known)
        for left in reversed(range(TRIES)):
            before = stand.read()
            try:
                outcome = workload.run(way, context)
            except LabError as error:
                what = f"{stand.system.name}, {cell.words()}: {error}"
                if not left:
                    raise LabError(what) from None
                self._progress.say(f"{what}; once more")
            else:
                return outcome, bed.usage(before, stand.read())
        raise AssertionError("unreachable")


def costs(outcome: Outcome, used: bed.Usage, *, alone: bool = True) -> dict[str, float]:
    """Processor time per what arrived, and drops. The whole machine's says nothing when others are at work on it."""
    if not outcome.whole:
        return {}
    values: dict[str, float] = {"drops": used.drops}
    if outcome.bits:
        values["cores_per_gbps"] = used.machine_busy_s / (outcome.bits / 1e9)
        values["daemon_cores_per_gbps"] = used.system_busy_s / (outcome.bits / 1e9)
    if outcome.packets:
        values["cpu_ns_per_packet"] = used.machine_busy_s * 1e9 / outcome.packets
        values["daemon_cpu_ns_per_packet"] = used.system_busy_s * 1e9 / outcome.packets
    if not alone:
        for name in ("cores_per_gbps", "cpu_ns_per_packet"):
            values.pop(name, None)
    return values


def skipped(names: Iterable[str]) -> dict[str, str]:
    """Systems that cannot be measured here, and what they lack."""
    return {name: f"needs {lacking}" for name in names if (lacking := BY_NAME[name].missing())}
