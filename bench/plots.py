"""The figures of a document as pictures, SVG and PNG.

Owns the three plots and what stands under each: the machine, the kernel, the commit and the settings, so that a picture
that travels alone still says where it comes from. Needs matplotlib, which nothing else does.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import links, systems
from bench.show import Row

FORMATS = ("svg", "png")
PERCENTILES = {"p25": 25.0, "p50": 50.0, "p75": 75.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}
SIZES = (64, 512, 1400)

Document = dict[str, Any]


def draw_all(document: Document, directory: Path) -> list[str]:
    """Draws what the document has figures for; the names of the plots."""
    directory.mkdir(parents=True, exist_ok=True)
    return [name for name, draw in PLOTS.items() if _saved(document, directory / name, draw)]


def label(row: Row) -> str:
    """A system's name; who pays for encryption says so."""
    return f"{row['system']}\n(encrypted)" if row["encrypted"] else str(row["system"])


def caption(document: Document, rows: Sequence[Row]) -> str:
    """What surrounds the figures of these rows."""
    machine, settings = document["machine"], document["settings"]
    commit, _, dirty = document["commit"].partition("-")
    loads = [row["surroundings"]["load_before"][0] for row in rows]
    first = (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, veth, no network card; "
        f"{settings['cc']}, median of {settings['pairs']} runs of {settings['seconds']} s, with lowest and highest; "
        f"load before {min(loads):g}-{max(loads):g}; commit {commit[:12]}{' and changes' if dirty else ''}"
    )
    devices = {
        f"{name} {it['qdisc']} {it['txqueuelen']}"
        for row in rows
        for name, it in row["surroundings"]["devices"].items()
        if not name.startswith("wg")  # named anew in every run
    }
    offloads = {
        f"{row['link']}: {', '.join(name for name, on in row['surroundings']['offloads'].items() if on)}"
        for row in rows
    }
    return "\n".join([first, f"qdisc and queue length: {'; '.join(sorted(devices))}", *sorted(offloads)])


def _saved(document: Document, path: Path, draw: Callable[[Any, Document], list[Row]]) -> bool:
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3})
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    drawn = draw(axes, document)
    if drawn:
        figure.text(0.5, -0.01, caption(document, drawn), ha="center", va="top", fontsize=6.5)
        for form in FORMATS:
            metadata = {"Date": None} if form == "svg" else {"Software": None}
            figure.savefig(path.with_suffix(f".{form}"), dpi=144, bbox_inches="tight", metadata=metadata)
    pyplot.close(figure)
    return bool(drawn)


def _rows(document: Document, **wanted: object) -> list[Row]:
    order = list(systems.OVERLAYS)
    found = [
        row
        for row in document["rows"]
        if row["system"] in order and all(row[field] == value for field, value in wanted.items())
    ]
    return sorted(found, key=lambda row: order.index(row["system"]))


def _bars(axes: Any, groups: dict[str, list[Row]], scale: float) -> None:
    """Groups of bars side by side, a bar for each row's median and a line from its lowest to its highest."""
    names = list(dict.fromkeys(label(row) for rows in groups.values() for row in rows))
    width = 0.8 / max(1, len(groups))
    for number, (group, rows) in enumerate(groups.items()):
        at = [names.index(label(row)) + (number - (len(groups) - 1) / 2) * width for row in rows]
        heights = [row["median"] / scale for row in rows]
        below = [(row["median"] - row["min"]) / scale for row in rows]
        above = [(row["max"] - row["median"]) / scale for row in rows]
        axes.bar(at, heights, width, label=group, yerr=[below, above], capsize=2, error_kw={"elinewidth": 0.8})
    axes.set_xticks(range(len(names)), names)
    axes.grid(visible=False, axis="x")
    axes.legend()


def throughput(axes: Any, document: Document) -> list[Row]:
    """One TCP stream by system and link."""
    cell = {"path": "host-host", "mtu": 1500, "workload": "tcp-1", "metric": "throughput_bps"}
    groups = {link: rows for link in links.NAMES if (rows := _rows(document, link=link, **cell))}
    if not groups:
        return []
    _bars(axes, groups, 1e9)
    axes.set_ylabel("Gb/s")
    axes.set_title("One TCP stream, host to host, MTU 1500")
    return [row for rows in groups.values() for row in rows]


def latency(axes: Any, document: Document) -> list[Row]:
    """The distribution of half round trips on a quiet machine."""
    cell = {"link": "pass-through", "path": "host-host", "mtu": 1500, "workload": "pingpong"}
    lines: dict[str, list[tuple[float, float]]] = {}
    used: list[Row] = []
    for name, percent in PERCENTILES.items():
        for row in _rows(document, metric=f"latency_{name}_s", **cell):
            used.append(row)
            lines.setdefault(label(row).replace("\n", " "), []).append((percent, row["median"] * 1e6))
    for name, points in lines.items():
        axes.plot([100 / (100 - percent) for percent, _ in points], [us for _, us in points], marker="o", label=name)
    if not lines:
        return []
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(
        [100 / (100 - percent) for percent in PERCENTILES.values()], [f"{p:g}" for p in PERCENTILES.values()]
    )
    axes.minorticks_off()
    axes.set_xlabel("percentile")
    axes.set_ylabel("half a round trip, microseconds")
    axes.set_title("sockperf ping-pong, pass-through link, host to host, quiet machine")
    axes.legend()
    return used


def packets(axes: Any, document: Document) -> list[Row]:
    """Datagrams per second by size: delivered under an unlimited sender, and the highest rate without loss."""
    cell = {"link": "wire", "path": "host-host", "mtu": 1500}
    used: list[Row] = []
    for metric, style in (("delivered_pps", "-"), ("no_loss_pps", "--")):
        for name in systems.OVERLAYS:
            rows = [
                (size, row)
                for size in SIZES
                for row in _rows(document, workload=f"udp-{size}", metric=metric, system=name, **cell)
            ]
            if len(rows) > 1:
                used += [row for _, row in rows]
                points = [(size, row["median"] / 1e3) for size, row in rows]
                what = "delivered" if metric == "delivered_pps" else "without loss"
                axes.plot(*zip(*points, strict=True), style, marker="o", label=f"{name}, {what}")
    if not used:
        return []
    axes.set_xticks(SIZES)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("bytes of payload")
    axes.set_ylabel("thousand datagrams per second")
    axes.set_title("iperf3 UDP, one sender, wire link, host to host")
    axes.legend()
    return used


PLOTS: dict[str, Callable[[Any, Document], list[Row]]] = {
    "throughput": throughput,
    "latency": latency,
    "packets": packets,
}
