"""What the API server answers, as values: pages of a list, events of a watch, errors.

Pure shapes. Of a node only what `node.py` names is decoded; the rest is skipped without a copy.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from udpbackend.errors import RegistryError
from udpbackend.subnets.kube.node import Node

GONE = 410
"""The HTTP status for what is too old for the server to go on from."""

FINAL = frozenset({400, 403, 404, 405, 422})
"""HTTP statuses that the same request will meet again."""


class ApiError(RegistryError):
    """A request without success; the message names the server and the cause."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        """The HTTP status, 0 where there was no answer."""


class StaleError(ApiError):
    """A watch that cannot go on although the server fares well: list again."""


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    """A list's own description."""

    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")
    """What asks for the next page; empty in the last."""


class Page(msgspec.Struct, frozen=True):
    """A part of a list."""

    items: list[Node]
    metadata: ListMeta = ListMeta()


class Event(NamedTuple):
    """What a watch tells."""

    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    node: Node


class Line(msgspec.Struct, frozen=True):
    """One line of a watch; what `object` is follows from `type`."""

    type: str
    object: msgspec.Raw


class Status(msgspec.Struct, frozen=True):
    """How a server says no."""

    message: str = ""
    code: int = 0


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    """Where a pod runs."""

    node_name: str = ""


class Pod(msgspec.Struct, frozen=True):
    """A pod, as far as we look at it."""

    spec: PodSpec = PodSpec()
