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


class Struct(dict[str, object]):
    """An object whose keys are printed in the order they were put in, as those of a Go struct; others are sorted."""


def members(data: bytes) -> dict[str, object]:
    """The members of an object, none for null; what is not UTF-8 is replaced. Raises ValueError."""
    try:
        found = json.loads(data.decode("utf-8", "replace"), parse_float=_number, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if found is None:
        return {}
    if isinstance(found, dict):
        return found
    raise ValueError("expected an object")


def encode(value: object, indent: int | None = None) -> bytes:
    """Compact, or with so many spaces of indent."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(_ordered(value), ensure_ascii=False, separators=separators, indent=indent)
    text = UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return SURROGATE.sub("\ufffd", text).encode()


def _ordered(value: object) -> object:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in (value if isinstance(value, Struct) else sorted(value))}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value


def _number(text: str) -> float:
    """Go prints 1.0 and 1e3 as 1 and 1000."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large a number")
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")
