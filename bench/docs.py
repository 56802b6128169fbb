"""`python -m bench docs [JSON]`: docs/benchmarks.md and its page of figures, from templates and a document.

Owns the tables of the pages and where their files lie. All prose stands in pages/, with a mark `{{name}}` where a table
goes; without a document, the marks become a sentence that says so.
"""

import argparse
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import busy_page, plots, profile, restart_page, scale_page, show, slow_peer, soak, surroundings, systems
from bench.lab.wait import LabError
from bench.show import Index, Row
from bench.systems import SCALED
from bench.systems.bare_loop import BareLoop
from bench.systems.udp import Udp, UdpBefore, UdpMerging
from bench.workloads import METRICS

TEMPLATES = Path(__file__).with_name("pages")
DOCS = surroundings.ROOT / "docs"
RECORDED = DOCS / "benchmarks"
"""Where documents and plots lie, and all pages but the first."""
PAGES = {"benchmarks.md": DOCS, "figures.md": RECORDED}
"""Each template, and the directory that its page is in."""
NO_RUN = "*No run is recorded here yet: `make bench`, then `make bench-docs`.*"
WIDTH = 120
NOTHING = "*This run has no figures for it.*"
FLOORS = {
    ("wire", "host-host", 1500, "tcp-1", "throughput_bps"): 1.0,
    ("wire", "host-host", 1500, "tcp-4", "throughput_bps"): 1.0,
    ("wire-nogro", "host-host", 1500, "tcp-1", "throughput_bps"): 0.85,
    ("pass-through", "host-host", 1500, "tcp-1", "throughput_bps"): 0.50,
    ("pass-through", "host-host", 1500, "tcp-4", "throughput_bps"): 0.38,
    ("pass-through", "pod-pod", 1500, "tcp-1", "throughput_bps"): 0.55,
    ("pass-through", "pod-pod", 1500, "tcp-4", "throughput_bps"): 0.40,
    ("wire", "host-host", 9000, "tcp-1", "throughput_bps"): 0.60,
    ("wire", "host-host", 1500, "udp-64", "delivered_pps"): 1.0,
    ("wire", "host-host", 1500, "udp-1400", "delivered_pps"): 1.0,
    ("wire", "host-host", 1500, "udp-64", "no_loss_pps"): 0.8,
    ("wire", "host-host", 1500, "udp-1400", "no_loss_pps"): 0.8,
    ("pass-through", "host-host", 1500, "pingpong", "latency_p50_s"): 1.3,
    ("pass-through", "host-host", 1500, "pingpong", "latency_p99_s"): 1.2,
}
"""The rows the project holds itself to, and the ratio to VXLAN that each must reach; of latencies, must not exceed."""
COSTS = ("cores_per_gbps", "cpu_ns_per_packet")
SCALE = (
    ("tcp-1", "throughput_bps"),
    ("pingpong", "latency_p50_s"),
    ("pingpong", "latency_p99_s"),
    ("publish", "publish_s"),
    ("publish", "gap_s"),
    ("publish", "gap_idle_s"),
    ("publish", "rss_bytes"),
)

Document = dict[str, Any]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, or a sentence where there is nothing to put into one."""
    if not rows:
        return NOTHING
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def where(row: Row) -> str:
    """A cell in words."""
    return f"{row['link']}, {row['path'].replace('-', ' to ')}" + (f", MTU {row['mtu']}" if row["mtu"] != 1500 else "")


def what(row: Row) -> str:
    """A workload and, where it has several figures, which."""
    return f"{row['workload']}{show.which(row)}"


def ratio_text(ratio: Row | None) -> str:
    """Median and spread."""
    return "-" if ratio is None else f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})"


def headline(document: Document) -> str:
    """The rows of FLOORS, from the run of their own if one is recorded beside the plots."""
    indices = [Index(it) for it in (_recording("floors"), document) if it]
    rows = []
    for key, floor in FLOORS.items():
        index = next((it for it in indices if it.row("udp", key)), indices[-1])
        ours = index.row("udp", key)
        ratio = ours and index.ratio(ours, systems.REFERENCE)
        theirs = index.row(systems.REFERENCE, key)
        if not ours or not ratio or not theirs:
            continue
        figures = [show.value(row["median"], row["unit"]) for row in (theirs, ours)]
        least = f"{'≤' if key[-1].startswith('latency') else '≥'} {floor:g}"
        cost = index.cost_ratio(ours, systems.REFERENCE)
        verdict = ratio["verdict"] if ours["proof"] == theirs["proof"] == "ok" else "no proof"
        rows.append(
            [
                where(ours),
                what(ours),
                *figures,
                ratio_text(ratio),
                str(ratio["pairs"]),
                verdict,
                least,
                ratio_text(cost),
            ]
        )
    header = ("link, path", "workload", "VXLAN", "udp", "udp : VXLAN", "pairs", "verdict", "floor", "CPU, udp : VXLAN")
    return markdown(header, rows)


def worse(document: Document) -> str:
    """Every figure by which VXLAN is better."""
    index = Index(document)
    rows = []
    for ratio in document["ratios"]:
        if (ratio["system"], ratio["against"], ratio["verdict"]) == ("udp", systems.REFERENCE, "worse"):
            row = index.find(ratio)
            metric = METRICS[ratio["metric"]].meaning
            rows.append([where(row), row["workload"], metric, ratio_text(ratio)])
    return markdown(("link, path", "workload", "figure", "udp : VXLAN"), rows)


def all_figures(document: Document) -> str:
    """Every headline of every system, with what it costs."""
    index = Index(document)
    rows = []
    for row in sorted(show.headlines(document), key=lambda it: (*show.cell_key(it), it["metric"])):
        name = f"{row['system']} *encrypted*" if row["encrypted"] else row["system"]
        ratio = index.ratio(row, systems.REFERENCE)
        spread = show.span(row["min"], row["max"], row["unit"])
        costs = [show.beside(index, row, *names) for names in show.COSTS]
        proof = "" if row["proof"] == "ok" else " **no proof**"
        verdict = ratio["verdict"] if ratio else "-"
        figures = [show.value(row["median"], row["unit"]), spread, ratio_text(ratio), verdict]
        rows.append([where(row), what(row), name + proof, *figures, *costs])
    header = ("link, path", "workload", "system", "median", "lowest-highest", ": VXLAN", "verdict")
    return markdown((*header, "CPU", "of that, daemon", "resent", "lost"), rows)


def pump(document: Document) -> str:
    """Ours against the same C code in a bare loop: figures, and what each costs."""
    index = Index(document)
    rows = []
    for ratio in document["ratios"]:
        row = index.find(ratio)
        if ratio["against"] == BareLoop.name and (show.is_headline(row) or row["metric"] in COSTS):
            figure = show.value(row["median"], row["unit"])
            verdict = [ratio_text(ratio), str(ratio["pairs"]), ratio["verdict"]]
            rows.append([where(row), f"{row['workload']}: {METRICS[row['metric']].meaning}", figure, *verdict])
    return markdown(("link, path", "figure", "udp, median", "udp : bare loop", "pairs", "verdict"), rows)


def twin(name: str, ours: str, its: str) -> Callable[[Document, object], str]:
    """Ours as it is and in another form that was measured in turn with it: a line for each figure."""

    def section(document: Document, _markdown: object) -> str:
        index = Index(document)
        rows = []
        for ratio in document["ratios"]:
            other = index.find(ratio)
            if (ratio["system"], ratio["against"]) != (name, Udp.name):
                continue
            if not (show.is_headline(other) or other["metric"] in COSTS):
                continue
            key = (other["link"], other["path"], other["mtu"], other["workload"], other["metric"])
            row = index.row(Udp.name, key)
            beside_vxlan = row and index.ratio(row, systems.REFERENCE)
            figures = [show.value(it["median"], it["unit"]) if it else "-" for it in (row, other)]
            verdict = [ratio_text(ratio), str(ratio["pairs"]), ratio["verdict"], ratio_text(beside_vxlan)]
            rows.append([where(other), f"{other['workload']}: {METRICS[other['metric']].meaning}", *figures, *verdict])
        header = ("link, path", "figure", ours, its, f"{its} : {ours}", "pairs", "verdict", f"{ours} : VXLAN")
        return markdown(header, rows)

    return section


def scale(document: Document) -> str:
    """A line for each size of the table: traffic, and its ratio to the smallest; publication; memory."""
    index = Index(document)
    smallest = SCALED[0].name
    lines = []
    for system in (scaled.name for scaled in SCALED):
        found = {(row["workload"], row["metric"]): row for row in document["rows"] if row["system"] == system}
        line = [f"{int(system.rpartition('-')[2]):,}"]
        for key in SCALE:
            row = found.get(key)
            ratio = row and index.ratio(row, smallest)
            line.append(show.value(row["median"], row["unit"]) if row else "-")
            if key[0] != "publish":
                line.append(f"{ratio_text(ratio)}, {ratio['verdict']}" if ratio else "-")
        if found:
            lines.append(line)
    header = ("subnets", "TCP 1 stream", ": 1 subnet", "ping-pong p50", ": 1 subnet", "p99", ": 1 subnet", "publish")
    return markdown((*header, "longest gap then", "longest gap else", "memory of a daemon"), lines)


def versions(document: Document) -> str:
    """What was measured, and what was not."""
    rows = [
        [name, it["what"] + (" *(encrypted)*" if it["encrypted"] else ""), it["version"] or "-"]
        for name, it in document["systems"].items()
    ]
    rows += [[name, f"not measured: {why}", "-"] for name, why in document["skipped"].items()]
    return markdown(("system", "what it is", "version"), rows)


def machine(document: Document) -> str:
    """The machine, the settings, and what was read back."""
    facts = {**document["machine"], "commit": document["commit"], **document["settings"]}
    rows = [[name.replace("_", " "), str(value)] for name, value in facts.items() if value not in ("", None)]
    return markdown(("what", "value"), rows)


def plot(document: Document) -> str:
    """The picture of the first page. All are drawn; the others are for the page of figures."""
    return _picture("throughput", plots.draw_all(document, RECORDED), "benchmarks/")


def pictures(document: Document) -> str:
    """The other plots, drawn now."""
    names = plots.draw_all(document, RECORDED)
    return "\n\n".join(_picture(name, names) for name in names if name != "throughput") or NOTHING


def _picture(name: str, drawn: Sequence[str], where_it_is: str = "") -> str:
    return f"![{name}]({where_it_is}{name}.svg)" if name in drawn else NOTHING


def _recording(name: str) -> Document | None:
    """The document of another run, if it is recorded beside the plots."""
    recorded = RECORDED / f"{name}.json"
    return json.loads(recorded.read_text()) if recorded.exists() else None


def _recorded(name: str, section: Callable[[Any, Any], str]) -> Callable[[Document], str]:
    """The section that such a recording is made into, whatever the document; nothing without one."""

    def render_it(_document: Document) -> str:
        document = _recording(name)
        return section(document, markdown) if document else ""

    return render_it


MARKS: dict[str, Callable[[Document], str]] = {
    "headline": headline,
    "worse": worse,
    "figures": all_figures,
    "pump": pump,
    "scale": scale,
    "busy": lambda document: _recorded("busy", busy_page.in_short)(document) or busy_page.NO_RUN,
    "busy_all": lambda document: _recorded("busy", busy_page.in_full)(document) or busy_page.NO_RUN,
    "cluster": _recorded("scale", scale_page.section),
    "soak": _recorded("soak", soak.section),
    "profile": _recorded("profile", profile.section),
    "merging": _recorded("udp-merging", twin(UdpMerging.name, "one by one", "merged")),
    "before": _recorded("floors", twin(UdpBefore.name, "now", "before")),
    "slow_peer": _recorded("slow-peer", slow_peer.section),
    "restart": lambda document: _recorded("restart", restart_page.in_short)(document) or restart_page.NO_RUN,
    "restart_all": _recorded("restart", restart_page.section),
    "through": _recorded("through-daemon", show.agreement_section),
    "versions": versions,
    "machine": machine,
    "plot": plot,
    "plots": pictures,
}


def render(template: str, document: Document | None) -> str:
    """A template's text with its marks filled."""
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: MARKS[found[1]](document) if document else NO_RUN, template)
    return "\n".join(_wrapped(line) for line in re.sub("\n{3,}", "\n\n", page).split("\n"))


def _wrapped(line: str) -> str:
    """Prose into which a mark has put figures, at the width of all our prose; rows of tables as they are."""
    if len(line) <= WIDTH or line.startswith(("|", "<")):
        return line
    return textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False)


def unknown_marks(template: str) -> Iterator[str]:
    """Marks that nothing fills."""
    yield from (name for name in re.findall(r"\{\{(\w+)\}\}", template) if name not in MARKS)


def main(argv: Sequence[str]) -> int:
    """The sub-command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench docs", description="Render docs/benchmarks.md and its figures."
    )
    parser.add_argument("json", type=Path, nargs="?", help="the document; without one the page says there is none")
    options = parser.parse_args(argv)
    try:
        document = json.loads(options.json.read_text()) if options.json else None
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read {options.json}: {error}") from None
    for name, directory in PAGES.items():
        page = directory / name
        note = (
            f"<!-- made by `make bench-docs` from bench/pages/{name} and runs of the bench: edit the template -->\n\n"
        )
        page.write_text(note + render((TEMPLATES / name).read_text(), document))
        print(f"{page.relative_to(surroundings.ROOT)} is written")
    return 0
