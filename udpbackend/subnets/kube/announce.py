"""What we write to our own node: the annotations by which the peers find it, and the condition that lets pods in.

Owns when something has to be written, always through nodes/status, and how a refusal is told. Must not know the other
nodes. A node object that somebody deletes, or strips of what we wrote, gets it again while we run.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from udpbackend.errors import ConfigError, HostError
from udpbackend.model import Attributes
from udpbackend.subnets.kube.annotations import Names
from udpbackend.subnets.kube.answers import FINAL, ApiError
from udpbackend.subnets.kube.client import Api
from udpbackend.subnets.kube.contact import Backoff, Timing
from udpbackend.subnets.kube.node import Node

log = logging.getLogger(__name__)

UPKEEP, CONDITION = "upkeep", "condition"


def network_available(now: datetime) -> dict[str, Any]:
    """What tells the scheduler that packets flow: flannel's condition, as a patch."""
    when = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": "NetworkUnavailable",
        "status": "False",
        "lastHeartbeatTime": when,
        "lastTransitionTime": when,
        "reason": "FlannelIsUp",
        "message": "Flannel is running on this node",
    }
    return {"status": {"conditions": [condition]}}


class Announcer:
    """What our node says; `attributes` is what its backend wants said."""

    def __init__(
        self, api: Api, names: Names, attributes: Attributes, timing: Timing, seen: Callable[[Node, Node], None]
    ) -> None:
        """`seen`: to be told what our node was, and what it has become by our own doing."""
        self._api = api
        self._seen = seen
        self._names = names
        self._attributes = attributes
        self._timing = timing
        self._uid: str | None = None
        """Of the node object that carries our condition."""
        self._sound: asyncio.Event | None = None
        self._problems: dict[str, str] = {}
        """By what is tried, each in a task of its own: what came of the last time is that task's to say."""

    @property
    def problem(self) -> str | None:
        """Why our node could not be made to say what it has to, the last time it was tried."""
        return "; ".join(dict.fromkeys(self._problems.values())) or None

    async def begin(self, node: Node) -> None:
        """Writes the annotations if they differ. Raises ConfigError for a bad overwrite, HostError as flannel does."""
        missing = self._names.missing(self._attributes, node.said)
        last_try = asyncio.get_running_loop().time() + self._timing.patch_for_s
        while missing:
            try:
                await self._annotate(node, missing)
            except ApiError as error:
                if error.code in FINAL:
                    raise HostError(f'failed to patch node "{node.name}": {error}') from None
                if asyncio.get_running_loop().time() + self._timing.patch_every_s > last_try:
                    text = f'timeout contacting kube-api, failed to patch node "{node.name}". Error: {error}'
                    raise HostError(text) from None
                self._complain(UPKEEP, str(error))
                await asyncio.sleep(self._timing.patch_every_s)
            else:
                self._problems.pop(UPKEEP, None)
                return

    async def upkeep(self, node: Node) -> float | None:
        """Writes again what our node has lost; the least wait in seconds if that has to be tried once more, else None.

        The condition is written to a node object that has taken another's place, where it is true.
        """
        try:
            if missing := self._names.missing(self._attributes, node.said):
                await self._annotate(node, missing)
            if self._uid not in (None, node.metadata.uid):
                if self._sound is None or not self._sound.is_set():
                    return 0.0
                await self._set_available(node)
            self._problems.pop(UPKEEP, None)
        except ConfigError as error:
            self._complain(UPKEEP, str(error))  # the administrator's annotation: it comes back to us when it is mended
        except ApiError as error:
            self._complain(UPKEEP, str(error))
            return error.retry_after_s
        return None

    async def available(self, own: Callable[[], Node], sound: asyncio.Event) -> None:
        """Sets the condition, however long that takes: it is written only while it is true."""
        self._sound = sound
        backoff = Backoff(self._timing)
        while self._uid is None:
            await sound.wait()
            try:
                await self._set_available(own())
            except ApiError as error:
                self._complain(CONDITION, str(error))
                await asyncio.sleep(backoff.next_s(error.retry_after_s))
        self._problems.pop(CONDITION, None)

    async def _annotate(self, node: Node, texts: dict[str, str]) -> None:
        self._seen(node, await self._api.patch_status(node.name, {"metadata": {"annotations": texts}}))
        log.info("node %s now has the annotations %s", node.name, json.dumps(texts))

    async def _set_available(self, node: Node) -> None:
        await self._api.patch_status(node.name, network_available(datetime.now(UTC)))
        self._uid = node.metadata.uid
        log.info("node %s now has the condition NetworkUnavailable=False", node.name)

    def _complain(self, about: str, problem: str) -> None:
        if problem != self._problems.get(about):
            log.warning("%s", problem)
        self._problems[about] = problem
