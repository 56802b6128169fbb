"""The figures of `bench scale`, for a terminal and for the page: tables from its document, prose from pages/scale.md.

Pure but for the reading of the template. Must not know how anything is measured.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.lab import table
from bench.show import duration, value

TEMPLATE = Path(__file__).parent / "pages" / "scale.md"
KINDS = {
    "quiet": "no changes",
    "elsewhere": "changes not followed",
    "watched": "changes followed",
}
COLUMNS = (
    ("p50", "latency_p50_s"),
    ("p99", "latency_p99_s"),
    ("p99.9", "latency_p999_s"),
    ("ping p50", "ping_p50_s"),
    ("ping p99", "ping_p99_s"),
    ("longest ping", "ping_max_s"),
)
COUNTS = ("changes/s", "tables/s", "a daemon", "etcd", "machine", "others", "loop late")

Document = dict[str, Any]
Window = dict[str, Any]


def counting(taken: Sequence[Window]) -> list[Window]:
    """The windows that nobody disturbed; all of them where that leaves nothing to compare."""
    good = [it for it in taken if not it["disturbed"]]
    return good if {it["kind"] for it in good} >= {"watched", "elsewhere"} else list(taken)


def windows(document: Document) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each window."""
    rows = []
    for number, it in enumerate(document["windows"]):
        words = KINDS[it["kind"]] + (" (disturbed)" if it["disturbed"] else "")
        rows.append([str(number), words, *(duration(it[name]) for _, name in COLUMNS), *_counts(it)])
    return ["window", "", *(title for title, _ in COLUMNS), *COUNTS], rows


def medians(document: Document) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the median of each kind of window, and what following changes costs."""
    rows = []
    for kind, words in KINDS.items():
        chosen = [it for it in counting(document["windows"]) if it["kind"] == kind]
        if not chosen:
            continue
        middle = {name: median(it[name] for it in chosen) for name in chosen[0] if name != "kind"}
        rows.append([f"{words}, {len(chosen)}", *(duration(middle[name]) for _, name in COLUMNS), *_counts(middle)])
    ratios = [f"{document['ratios'][name]:.2f}" for _, name in COLUMNS]
    rows.append(["followed : not followed", *ratios, *("" for _ in COUNTS)])
    return ["median of windows", *(title for title, _ in COLUMNS), *COUNTS], rows


def starts(document: Document) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each start of a daemon whose peers were all there."""
    rows = [
        [f"{it['routes']:,}", duration(it["seconds"]), duration(it["cpu_s"]), value(it["rss_bytes"], "B")]
        for it in document["starts"]
    ]
    return ["routes", "exec to full table", "processor time", "memory"], rows


def summary(document: Document) -> str:
    """For a terminal."""
    parts = [
        table.render(*starts(document), left=0),
        table.render(*windows(document)),
        table.render(*medians(document), left=1),
    ]
    return "\n\n".join([*parts, final(document)])


def final(document: Document) -> str:
    """How it ended, in sentences."""
    last = document["windows"][-1]
    disturbed = sum(it["disturbed"] for it in document["windows"])
    all_count = disturbed and len(counting(document["windows"])) == len(document["windows"])
    noise = f"Other programs disturbed {disturbed} of {len(document['windows'])} windows" if disturbed else ""
    noise += ", so all had to count. " if all_count else ", which do not count. " if disturbed else ""
    return noise + (
        f"After every window both daemons knew exactly the {document['agreed_leases']:,} leases that stood in etcd; "
        f"in the end the larger of them had {value(last['rss_bytes'], 'B')} of memory in use."
    )


def section(document: Document, markdown: Callable[[list[str], list[list[str]]], str]) -> str:
    """For the page; `markdown` makes a table of a header and rows."""
    machine = document["machine"]
    filled = {
        "starts": markdown(*starts(document)),
        "medians": markdown(*medians(document)),
        "windows": markdown(*windows(document)),
        "final": final(document),
        "where": f"{machine['cpu']}, {machine['cores']} processors, Linux {machine['kernel']}, {machine['at'][:10]}",
        **{name: f"{number:,}" for name, number in document["settings"].items() if isinstance(number, int)},
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], TEMPLATE.read_text()).rstrip()


def _counts(window: Window) -> list[str]:
    rates = [f"{window['changes_per_s']:.0f}", f"{window['publications_per_s']:.1f}"]
    cores = [f"{window[name]:.2f}" for name in ("daemon_cores", "etcd_cores", "machine_cores", "others_cores")]
    return [*rates, *cores, duration(window["loop_lag_s"])]
