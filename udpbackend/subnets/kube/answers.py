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

BUSY = frozenset({429, 503})
"""HTTP statuses with which a server may say when to come again."""

LONGEST_RETRY_S = 60.0
"""More than that is no busy API server's wish: waiting for it, we would follow nothing."""


class ApiError(RegistryError):
    """A request without success; the message names the server and the cause."""

    def __init__(self, message: str, code: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        """The HTTP status, 0 where there was no answer."""
        self.retry_after_s = retry_after_s
        """How long a busy server asks to be left alone, 0 where it does not."""


class StaleError(ApiError):
    """A watch that cannot go on although the server fares well: list again."""


def retry_after_s(code: int, said: str) -> float:
    """The wait that a refusal asks for; `said` is its header Retry-After, in seconds, as an API server writes it."""
    if code not in BUSY or not (said.isascii() and said.isdigit()):
        return 0.0
    return LONGEST_RETRY_S if len(said) > 3 else min(float(said), LONGEST_RETRY_S)


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
