"""The document as text for a terminal: a line for each system and headline figure, with its ratio to the reference.

Pure: a document as it is written goes in, lines come out.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench import result, systems, workloads
from bench.lab.table import count, render

HEADER = (
    "link, path, MTU, workload",
    "system",
    "median",
    "min-max",
    "to vxlan",
    "min-max",
    "verdict",
    "CPU",
    "daemon",
    "resent",
    "lost",
)
LEGEND = (
    "to vxlan: the ratio, taken pair by pair. verdict: what a permutation test over all runs sees. CPU: processors\n"
    "busy in the whole machine (both hosts and the senders) per Gb/s, or microseconds per datagram; daemon: of that,\n"
    "the system's own processes. resent: TCP segments. lost: packets dropped by links, sockets or systems."
)
ENCRYPTED = " (encrypted)"
SEARCHED = ("no_loss_pps",)
"""Figures that come from other runs than what stands beside them."""

Row = dict[str, Any]


def duration(seconds: float) -> str:
    """In the unit that fits."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


_UNITS: dict[str, Callable[[float], str]] = {
    "bit/s": lambda number: f"{number / 1e9:.2f} Gb/s",
    "packets/s": lambda number: f"{number / 1e3:.1f} k/s",
    "1/s": lambda number: f"{count(number)}/s",
    "s": duration,
    "cores/(Gb/s)": lambda number: f"{number:.3f}",
    "ns": lambda number: f"{number / 1e3:.2f} us",
    "B": lambda number: f"{number / 1e6:.1f} MB",
    "": lambda number: f"{100 * number:.2f} %",
}


def value(number: float, unit: str) -> str:
    """A figure with its unit."""
    return _UNITS[unit](number) if unit in _UNITS else count(number)


def span(low: float, high: float, unit: str) -> str:
    """From one figure to another."""
    first, second = value(low, unit), value(high, unit)
    if first.partition(" ")[2] == second.partition(" ")[2]:
        first = first.partition(" ")[0]
    return f"{first}-{second}"


def cell_key(row: Row) -> tuple[Any, ...]:
    """What two rows of one cell have in common."""
    return (row["link"], row["path"], row["mtu"], row["cc"], row["workload"], hogs(row))


def hogs(row: Row) -> int:
    """How many endless loops ran beside it; older documents know none."""
    return int(row.get("hogs", 0))


def words(row: Row) -> str:
    """A cell and which of its figures, for a line of a terminal."""
    return f"{row['link']}, {row['path']}, {row['mtu']}, {row['workload']}{which(row)}{result.beside(hogs(row))}"


class Index:
    """Finds rows and ratios of a document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.rows: list[Row] = document["rows"]
        self._by: dict[tuple[Any, ...], Row] = {
            (*cell_key(row), row["system"], row["metric"]): row for row in self.rows
        }
        self._ratios: dict[tuple[Any, ...], Row] = {
            (*cell_key(row), row["system"], row["metric"], row["against"]): row for row in document["ratios"]
        }

    def beside(self, row: Row, metric: str) -> Row | None:
        """Another metric of the same runs."""
        return self._by.get((*cell_key(row), row["system"], metric))

    def row(self, system: str, key: tuple[Any, ...], loops: int = 0) -> Row | None:
        """By link, path, MTU, workload and metric, whatever the congestion control; `loops`: that run beside it."""
        for row in self.rows:
            found = (row["link"], row["path"], row["mtu"], row["workload"], row["metric"])
            if row["system"] == system and found == key and hogs(row) == loops:
                return row
        return None

    def find(self, ratio: Row) -> Row:
        """The row that a ratio is about."""
        return self._by[(*cell_key(ratio), ratio["system"], ratio["metric"])]

    def cost_ratio(self, row: Row, against: str) -> Row | None:
        """What a row costs, in relation to another system."""
        if row["metric"] in SEARCHED:
            return None
        metric = "cpu_ns_per_packet" if row["unit"] == "packets/s" else "cores_per_gbps"
        cost = self.beside(row, metric)
        return None if cost is None else self.ratio(cost, against)

    def ratio(self, row: Row, against: str) -> Row | None:
        """Of a row to the same one of another system."""
        return self._ratios.get((*cell_key(row), row["system"], row["metric"], against))


def headlines(document: dict[str, Any]) -> Iterator[Row]:
    """The rows worth a line."""
    for row in document["rows"]:
        if is_headline(row):
            yield row


def is_headline(row: Row) -> bool:
    """Whether it is worth a line."""
    return (row["workload"], row["metric"]) in workloads.HEADLINES


def table(document: dict[str, Any], against: str) -> str:
    """All headlines."""
    index = Index(document)
    rows = [_line(index, row, against) for row in headlines(document)]
    return render(HEADER, rows)


AGREEMENT = (HEADER[0], "through our daemon : by hand", "ratio", "min-max", "verdict")


def agreement_rows(document: dict[str, Any]) -> Iterator[Sequence[str]]:
    """The headlines of each system that our daemon has set up, and their ratio to the one set up by hand."""
    index = Index(document)
    for name, twin in systems.THROUGH_DAEMON.items():
        for row in headlines(document):
            ratio = index.ratio(row, name) if row["system"] == twin.name else None
            if ratio:
                verdict = ratio["verdict"] if row["proof"] == "ok" else "NO PROOF"
                spread = f"{ratio['min']:.2f}-{ratio['max']:.2f}"
                yield words(row), f"{twin.name} : {name}", f"{ratio['median']:.2f}", spread, verdict


def agreement_section(document: dict[str, Any], markdown: Callable[[Sequence[str], list[Sequence[str]]], str]) -> str:
    """The same for the page."""
    return markdown(AGREEMENT, list(agreement_rows(document)))


def agreement(document: dict[str, Any]) -> str:
    """The same as a table; "" where no system was set up by our daemon."""
    rows = list(agreement_rows(document))
    return render(AGREEMENT, rows) if rows else ""


def _line(index: Index, row: Row, against: str) -> Sequence[str]:
    ratio = index.ratio(row, against)
    unit = row["unit"]
    return (
        words(row),
        row["system"] + (ENCRYPTED if row["encrypted"] else ""),
        value(row["median"], unit),
        span(row["min"], row["max"], unit),
        f"{ratio['median']:.2f}" if ratio else "-",
        f"{ratio['min']:.2f}-{ratio['max']:.2f}" if ratio else "-",
        (ratio["verdict"] if ratio else "") if row["proof"] == "ok" else "NO PROOF",
        *(beside(index, row, *names) for names in COSTS),
    )


COSTS = (
    ("cores_per_gbps", "cpu_ns_per_packet"),
    ("daemon_cores_per_gbps", "daemon_cpu_ns_per_packet"),
    ("retransmits",),
    ("drops",),
)
"""The last columns; of several metrics, the one that the workload's headline is paid in."""


def beside(index: Index, row: Row, *metrics: str) -> str:
    """One of COSTS, as text."""
    if row["metric"] in SEARCHED:
        return "-"
    wanted = metrics[-1] if row["unit"] == "packets/s" else metrics[0]
    found = index.beside(row, wanted)
    if found is None:
        return "-"
    return value(found["median"], found["unit"]) if found["unit"] in ("ns", "cores/(Gb/s)") else count(found["median"])


def which(row: Row) -> str:
    """Says which of several figures of a workload this is."""
    if row["metric"].startswith("latency_p"):
        return f" p{row['metric'].removeprefix('latency_p').removesuffix('_s').replace('999', '99.9')}"
    return "" if row["metric"] in ("throughput_bps", "delivered_pps", "connects_per_s") else f" {row['metric']}"
