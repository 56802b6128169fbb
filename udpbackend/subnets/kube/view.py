"""The nodes as they were last seen: what changed, what is wrong with which of them, and our own node apart.

Owns what is remembered of the cluster and tells its two readers (`watch` and `run` of the manager) when there is
something for them. Knows nothing of lists and watches. A node whose heartbeat says nothing new changes nothing here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from udpbackend.model import Lease, NetworkConfig
from udpbackend.subnets.kube.annotations import Names
from udpbackend.subnets.kube.claims import settle
from udpbackend.subnets.kube.node import Node, Reading, read

log = logging.getLogger(__name__)


class View:
    """All nodes of the cluster that are flannel's."""

    def __init__(self, own: Node, names: Names, config: NetworkConfig) -> None:
        """`own`: this host's node as it was found at the start."""
        self.changed = asyncio.Event()
        """Set when another node may have become another lease, or none; also by the first list."""
        self.own_changed = asyncio.Event()
        """Set when our own node says something else than before."""
        self.own = own
        """Our own node as it was last seen."""
        self.deleted: str | None = None
        """Why nobody else knows of it any more; None while it is there."""
        self._names = names
        self._config = config
        self._readings: dict[str, Reading] = {}
        self._complaints: dict[str, str] = {}
        self._leases: tuple[Lease, ...] | None = None

    def read(self, nodes: Iterable[Node]) -> dict[str, Reading]:
        """A part of a list, for `replace`; our own node is taken note of at once."""
        readings = {}
        for node in nodes:
            if node.name == self.own.name:
                self._put_own(node)
            elif reading := read(node, self._names, self._config):
                readings[node.name] = reading
        return readings

    def replace(self, readings: dict[str, Reading]) -> None:
        """What a whole list has shown: nodes that are not in it are gone."""
        for name, reading in readings.items():
            self._complain(name, reading)
        if readings != self._readings or self._leases is None:
            self._readings = readings
            self.changed.set()

    def put(self, node: Node) -> None:
        """A node that was added or changed."""
        if node.name == self.own.name:
            self._put_own(node)
            return
        reading = read(node, self._names, self._config)
        if reading is None:
            self.remove(node.name)
        elif reading != self._readings.get(node.name):
            self._complain(node.name, reading)
            self._readings[node.name] = reading
            self.changed.set()

    def patched(self, before: Node, after: Node) -> None:
        """What our own node has become by our own doing; `before`: as it was known when that was asked for.

        The answer may be late. Whatever we were told of our node meanwhile is as new or newer, or will be followed by
        an event that brings the same as the answer.
        """
        if self.deleted is None and self.own == before:
            self._put_own(after)

    def remove(self, name: str) -> None:
        """A node that is gone, or no longer flannel's. Our own stays as it was: it is we who know that it runs."""
        if name == self.own.name:
            self.deleted = f"the node {name} of this host was deleted: the other nodes no longer reach it"
            log.warning("%s", self.deleted)
        elif self._readings.pop(name, None) is not None:
            self.changed.set()

    async def leases(self, own: Lease) -> tuple[Lease, ...] | None:
        """Those of now, in the order of their subnets; None if they are the same as the last time."""
        # Thousands of nodes take long enough to be felt by packets, so they are sorted out beside the loop.
        leases, refused, doubted = await asyncio.to_thread(settle, own, list(self._readings.values()))
        complaints = {name: f"is left out: {problem}" for name, problem in refused.items()}
        complaints |= {name: f"is kept, but {problem}" for name, problem in doubted.items()}
        for name, complaint in complaints.items():
            if self._complaints.get(name) != complaint:
                log.warning("node %s %s", name, complaint)
        self._complaints = complaints
        if leases == self._leases:
            return None
        self._leases = leases
        return leases

    def _put_own(self, node: Node) -> None:
        before, self.own, self.deleted = self.own, node, None
        if (node.metadata.uid, node.said, node.spec) != (before.metadata.uid, before.said, before.spec):
            self.own_changed.set()

    def _complain(self, name: str, reading: Reading) -> None:
        before = self._readings.get(name)
        if reading.problem and (before is None or before.problem != reading.problem):
            what = "carries no IPv6" if reading.lease else "is left out"
            log.warning("node %s %s: %s", name, what, reading.problem)
