"""What etcd answers, as plain values, so that nothing above the client sees gRPC or protobuf.

Keys and values are bytes as they stand in etcd; revisions and lease ids are etcd's own numbers.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from udpbackend.errors import RegistryError


class CompactedError(RegistryError):
    """A revision is asked for that etcd has forgotten, or after a reset has not come to: list again, then watch on."""

    def __init__(self, message: str, revision: int) -> None:
        super().__init__(message)
        self.revision = revision
        """The oldest revision that etcd still knows, 0 where it does not say."""


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """One key as it stands in etcd."""

    key: bytes
    value: bytes
    mod_revision: int
    """That of its last change."""
    create_revision: int
    version: int
    """How often it was written since it was created, 1 for once; 0 in a DELETE event."""
    lease: int
    """The id of the lease it dies with; 0: it stays (a reservation)."""


class Range(msgspec.Struct, frozen=True):
    """Keys read at one revision, in the order of the keys."""

    revision: int
    """A watch from `revision + 1` misses nothing."""
    cluster_id: int
    """Another one than before: another cluster, so the revisions say nothing about each other."""
    items: tuple[KeyValue, ...]


class Outcome(msgspec.Struct, frozen=True):
    """What became of a transaction."""

    succeeded: bool
    revision: int
    """Where it succeeded: the key's new mod_revision."""
    found: KeyValue | None = None
    """Where it did not: the key as it stands now, None if there is none."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One change of a key."""

    kind: Literal["PUT", "DELETE"]
    kv: KeyValue
    """After a DELETE only `key` and `mod_revision` (that of the deletion) mean anything."""


class Batch(msgspec.Struct, frozen=True):
    """What a watch tells at once."""

    revision: int
    """etcd's revision when it was sent. One without events may run ahead of events still to come (etcd before 3.4.25
    and 3.5.8), so go on after a loss from the last *event's* mod_revision + 1."""
    cluster_id: int
    events: tuple[Event, ...]
    """In the order of their revisions; empty: the watch stands and has nothing to tell."""


def key_value(kv: Any) -> KeyValue:
    """One of protobuf's key-value messages."""
    return KeyValue(kv.key, kv.value, kv.mod_revision, kv.create_revision, kv.version, kv.lease)


def after(prefix: bytes) -> bytes:
    """The first key behind all that begin with `prefix`, which ends in UTF-8 text (and so in no byte of 255)."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def text(key: bytes) -> str:
    """A key in a line for people, whatever bytes it has."""
    return key.decode(errors="backslashreplace")
