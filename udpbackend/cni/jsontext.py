"""JSON as Go's encoding/json reads and prints it.

State files and delegated configurations are the same bytes as those of flannel's plugin, so that either can go on where
the other stopped. Knows no key of CNI.
"""

from __future__ import annotations

import json
import re

UNSAFE = re.compile("[<>&\u2028\u2029]")
"""Go escapes them, in case somebody puts JSON into HTML."""
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, or a byte of the environment that is not UTF-8."""

EXACT = 2**53
"""Whole numbers up to here are what they are in a float64 too."""
DIGITS = 18
"""Fewer are less than 1e21 in any case."""


class Struct(dict[str, object]):
    """An object whose keys are printed in the order they were put in, as those of a Go struct; others are sorted."""


def members(data: bytes) -> dict[str, object]:
    """The members of an object, none for null; what is not UTF-8 is replaced. Raises ValueError."""
    try:
        text = data.decode("utf-8", "replace")
        found = json.loads(text, parse_float=_number, parse_int=_whole_number, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if found is None:
        return {}
    if isinstance(found, dict):
        return found
    raise ValueError("expected an object")


def encode(value: object, indent: int | None = None) -> bytes:
    """Compact, or with so many spaces of indent."""
    text = UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", _printed(value, indent, "\n"))
    return SURROGATE.sub("\ufffd", text).encode()


def _printed(value: object, indent: int | None, line: str) -> str:
    """`line`: what a new line begins with, at this depth."""
    deeper = line + " " * (indent or 0)
    if isinstance(value, dict):
        colon = ":" if indent is None else ": "
        keys = value if isinstance(value, Struct) else sorted(value)
        items = [f"{_printed(key, None, line)}{colon}{_printed(value[key], indent, deeper)}" for key in keys]
        ends = "{}"
    elif isinstance(value, list):
        items, ends = [_printed(item, indent, deeper) for item in value], "[]"
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number_printed(value)
    else:
        return json.dumps(value, ensure_ascii=False)
    if indent is None or not items:
        return ends[0] + ",".join(items) + ends[1]
    return ends[0] + deeper + f",{deeper}".join(items) + line + ends[1]


def _number_printed(value: float) -> str:
    """As Go prints what it has read as a float64: the fewest digits, an exponent only for the very small and large."""
    if isinstance(value, int) and abs(value) <= EXACT:
        return str(value)
    digits, _, exponent = repr(float(value)).partition("e")
    if not exponent:
        return digits.removesuffix(".0")
    power = int(exponent)
    if not -6 <= power < 21:
        return f"{digits}e{power:+d}"
    sign = "-" if digits[0] == "-" else ""
    whole, _, part = digits.lstrip("-").partition(".")
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{whole}{part}"
    return f"{sign}{whole}{part.ljust(power, '0')}"


def _number(text: str) -> float:
    """One that is whole becomes an int, so that 1400.0 is as good as 1400."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large a number")
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def _whole_number(text: str) -> float:
    """What a float64 cannot hold exactly is as inexact as in Go, and too large where it is there."""
    return int(text) if len(text) < DIGITS else _number(text)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")
