"""Columns for people. Pure: rows of text in, lines out; knows nothing of what they say."""

from collections.abc import Sequence


def render(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """Lines of aligned columns under a rule; the first `left` columns start at the left, figures at the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def align(line: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([align(header), "-" * (sum(widths) + 2 * (len(widths) - 1)), *map(align, rows)])


def count(number: float) -> str:
    """1234567 as 1.23 M: four significant characters, for packets and bytes (powers of 1000)."""
    for unit in ("", " k", " M", " G"):
        if abs(number) < 999.5:
            return f"{number:.0f}{unit}" if not unit or abs(number) >= 99.95 else f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T"
