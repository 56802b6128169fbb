"""JSON as Go's encoding/json reads it into a struct, since every file flannel reads is read that way.

Keys match in any case, unknown keys are ignored, of two equal keys the last counts, null is as good as absent, and a
value of the wrong type is an error that names its place. Knows no key of ours.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from udpbackend.errors import ConfigError

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a document that is none; it has no error of its own for a key that is no UTF-8."""

SHOWN_CHARS = 60
"""Of a wrong value, this much is repeated in the error."""


def decode(data: str | bytes) -> Any:
    """Any JSON value, objects as dicts with their keys as written. Raises ConfigError with line and column."""
    try:
        text = data if isinstance(data, str) else data.decode()
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        what = error.msg.partition(" (decode using")[0]  # Python's advice for a byte order mark is for programmers
        raise ConfigError(f"not valid JSON: line {error.lineno} column {error.colno}: {what}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"not valid JSON: not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not valid JSON: {error}") from None


def shown(value: Any) -> str:
    """A value as an error repeats it: as JSON, and not too long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."


class Fields:
    """One JSON object, its values by name; `path` is where it stands, for example `Nodes[3]`."""

    __slots__ = ("_path", "_values")

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, dict | None):
            raise ConfigError(f"{path + ': ' if path else ''}expected an object, got {shown(value)}")
        self._path = path
        self._values = {key.casefold(): found for key, found in (value or {}).items()}

    def __contains__(self, name: str) -> bool:
        return name.casefold() in self._values

    def place(self, name: str) -> str:
        """The key path of one of our values, for an error."""
        return f"{self._path}.{name}" if self._path else name

    def raw(self, name: str) -> Any:
        """The value as it stands, None if absent."""
        return self._values.get(name.casefold())

    def string(self, name: str) -> str:
        """A string, empty if absent."""
        value = self.raw(name)
        if not isinstance(value, str | None):
            raise ConfigError(f"{self.place(name)}: expected a string, got {shown(value)}")
        return value or ""

    def whole(self, name: str) -> int | None:
        """A whole number, None if absent."""
        value = self.raw(name)
        if not isinstance(value, int | None) or isinstance(value, bool):
            raise ConfigError(f"{self.place(name)}: expected a whole number, got {shown(value)}")
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self.raw(name)
        if not isinstance(value, bool | None):
            raise ConfigError(f"{self.place(name)}: expected true or false, got {shown(value)}")
        return default if value is None else value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # a repeated key moves to its last place: it may compete with one in another case
        found.clear()
        for key, value in pairs:
            found.pop(key, None)
            found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
