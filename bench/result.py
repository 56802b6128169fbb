"""The document a bench writes: rows of figures, ratios between systems, and what surrounded them. Pure but for `save`.

Owns the names of the fields. A *cell* is everything a figure depends on but the system; a row is one metric of one
system in a cell, with the figure of every run; a ratio sets two systems' rows of the same cell side by side.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench import pairs
from bench.workloads import METRICS

SCHEMA = 1


@dataclass(frozen=True, order=True)
class Cell:
    """Where a figure was taken."""

    link: str
    path: str
    mtu: int
    cc: str
    workload: str
    hogs: int = 0
    """Endless loops that run beside it."""

    def words(self) -> str:
        """For people."""
        return f"{self.link}, {self.path}, MTU {self.mtu}, {self.workload}" + beside(self.hogs)


def beside(hogs: int) -> str:
    """What a row is called that endless loops run beside."""
    return f", beside {hogs} endless loop{'s' * (hogs > 1)}" if hogs else ""


@dataclass
class Series:
    """The runs of one system in one cell."""

    values: dict[str, dict[int, float]] = field(default_factory=dict)
    """By metric and round. Systems that were measured in turn share the round, and only those are pairs."""
    complaints: list[str] = field(default_factory=list)
    """Runs whose proof of path failed, and why."""
    encrypted: bool = False
    surroundings: dict[str, Any] = field(default_factory=dict)

    def add(self, number: int, figures: dict[str, float]) -> None:
        """The figures of one round."""
        for metric, value in figures.items():
            self.values.setdefault(metric, {})[number] = value


@dataclass
class Document:
    """Everything measured so far."""

    machine: dict[str, Any]
    commit: str
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Systems that could not be measured, and why."""
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each: `what`, `version`, `encrypted`, and `against` which other system it is set beside the reference."""
    series: dict[Cell, dict[str, Series]] = field(default_factory=dict)

    def of(self, cell: Cell, system: str) -> Series:
        """The series of a system in a cell, made when it is not there."""
        return self.series.setdefault(cell, {}).setdefault(system, Series())

    @property
    def complaints(self) -> list[str]:
        """Every failed proof."""
        return [
            f"{system}, {cell.words()}: {complaint}"
            for cell, systems in self.series.items()
            for system, series in systems.items()
            for complaint in series.complaints
        ]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One for each metric of each system in each cell."""
        for cell, systems in self.series.items():
            for system, series in systems.items():
                for metric, rounds in series.values.items():
                    samples = list(rounds.values())
                    yield {
                        "system": system,
                        **_cell(cell),
                        "metric": metric,
                        "unit": METRICS[metric].unit,
                        "samples": samples,
                        "median": median(samples),
                        "min": min(samples),
                        "max": max(samples),
                        "runs": len(samples),
                        "proof": "; ".join(series.complaints) or "ok",
                        "encrypted": series.encrypted,
                        "surroundings": series.surroundings,
                    }

    def ratios(self, reference: str) -> Iterator[dict[str, Any]]:
        """Every system against the reference, and against its own opposite where it has one."""
        for cell, systems in self.series.items():
            for system, series in systems.items():
                for against in dict.fromkeys((reference, self.systems.get(system, {}).get("against", ""))):
                    if against != system and against in systems:
                        yield from _ratios(cell, system, series, against, systems[against])

    def as_json(self, reference: str) -> dict[str, Any]:
        """The document as it is written."""
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "commit": self.commit,
            "settings": self.settings,
            "systems": self.systems,
            "skipped": self.skipped,
            "rows": list(self.rows()),
            "ratios": list(self.ratios(reference)),
        }


def _cell(cell: Cell) -> dict[str, Any]:
    return asdict(cell)


def _ratios(cell: Cell, system: str, ours: Series, against: str, theirs: Series) -> Iterator[dict[str, Any]]:
    for metric, samples in ours.values.items():
        other = theirs.values.get(metric, {})
        rounds = sorted(samples.keys() & other.keys())
        found = pairs.compare([samples[number] for number in rounds], [other[number] for number in rounds])
        if found.ratios:
            yield {
                "system": system,
                "against": against,
                **_cell(cell),
                "metric": metric,
                "median": found.median,
                "min": min(found.ratios),
                "max": max(found.ratios),
                "pairs": len(found.ratios),
                "probability": found.probability,
                "verdict": _verdict(metric, found),
            }


def _verdict(metric: str, found: pairs.Comparison) -> str:
    if not found.level:
        return "too few pairs"
    if not found.difference:
        return "no difference"
    return "better" if (found.median > 1) == METRICS[metric].more_is_better else "worse"


def save(document: dict[str, Any], path: Path) -> None:
    """Writes the document, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(document, indent=1) + "\n")
    fresh.replace(path)
