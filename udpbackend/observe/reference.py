"""What is generated from the code: the JSON schema of the status document and the list of counters in the docs.

`python -m udpbackend.observe.reference` writes both into a checkout; tests prove them fresh. No part of the daemon.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from udpbackend.backends.udp_drops import KERNEL_DROPS
from udpbackend.dataplane.native import CounterInfo, counter_infos
from udpbackend.observe.report import Report

ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).with_name("status.schema.json")
DOCS = ROOT / "docs" / "operations.md"
WIDTH = 120
"""Of the docs, in columns."""
BEGIN, END = "<!-- counters: begin -->", "<!-- counters: end -->"


def status_schema() -> str:
    """The JSON schema of `/status` and of `udp-backend status -o json`."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Status of udp-backend",
        **msgspec.json.schema(Report),
    }
    for definition in schema["$defs"].values():
        definition["required"] = list(definition["properties"])  # nothing is left out for being the default
    return json.dumps(schema, indent=2) + "\n"


def counter_list(infos: Sequence[CounterInfo] | None = None) -> str:
    """Every counter with its meaning and its cure, as Markdown: the dataplane's, then the kernel's beside them."""
    rows = counter_infos() if infos is None else infos
    drops = [(row.name, row.meaning, row.cure) for row in rows if row.kind == "dropped"]
    others = [(row.name, row.meaning, row.cure) for row in rows if row.kind != "dropped"]
    kernel = [(it.name, it.meaning, it.cure) for it in KERNEL_DROPS]
    parts = [
        ("Packets dropped, one counter for each cause:", drops),
        ("Packets the kernel dropped beside us:", kernel),
        ("Everything else that is counted:", others),
    ]
    return "\n".join(f"{title}\n\n{_list(rows)}" for title, rows in parts)


def with_counters(text: str) -> str:
    """The document with the counters between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{counter_list()}\n{END}{after}"


def _list(rows: Iterable[tuple[str, str, str]]) -> str:
    """A list, not a table: a row would be hundreds of columns wide."""
    lines = []
    for name, meaning, cure in rows:
        lines.append(_filled(f"`{name}`: {meaning}", "- "))
        if cure:
            lines.append(_filled(f"cure: {cure}", "  - "))
    return "\n".join(lines) + "\n"


def _filled(text: str, bullet: str) -> str:
    """Wrapped, but not inside what stands in back quotes."""
    whole = re.sub("`[^`]+`", lambda quoted: quoted[0].replace(" ", "\0"), text)
    indent = " " * len(bullet)
    filled = textwrap.fill(
        whole,
        WIDTH,
        initial_indent=bullet,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace("\0", " ")


if __name__ == "__main__":
    SCHEMA.write_text(status_schema())
    DOCS.write_text(with_counters(DOCS.read_text()))
