"""What the doctor asks the API server of Kubernetes: what we may do, how a node fares, what all nodes claim.

Owns these requests. Who we are and where the server is follows from the same settings as for the daemon, and the list
of nodes is asked for by the daemon's own client. Changes nothing: a SelfSubjectAccessReview is a question that is
written as a POST.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NamedTuple, TypeVar

import httpx2
import msgspec

from udpbackend import __version__
from udpbackend.doctor.aside import aside
from udpbackend.gojson import UNREADABLE
from udpbackend.settings import Settings
from udpbackend.subnets.kube.access import Access, find_access
from udpbackend.subnets.kube.annotations import Names
from udpbackend.subnets.kube.answers import ApiError, Status
from udpbackend.subnets.kube.client import Api
from udpbackend.subnets.kube.node import Node

T = TypeVar("T")

REQUEST_S = 5.0


class Condition(msgspec.Struct, frozen=True):
    """One of a node's conditions."""

    type: str
    status: str
    """`True`, `False` or `Unknown`."""
    reason: str = ""
    message: str = ""


class NodeStatus(msgspec.Struct, frozen=True):
    """How a node fares."""

    conditions: tuple[Condition, ...] = ()


class NodeHealth(Node, frozen=True):
    """A node with its conditions."""

    status: NodeStatus = NodeStatus()


class Verdict(msgspec.Struct, frozen=True):
    """The answer to a review."""

    allowed: bool = False
    reason: str = ""


class Review(msgspec.Struct, frozen=True):
    """A SelfSubjectAccessReview that was answered."""

    status: Verdict


class Claimant(NamedTuple):
    """What a node of ours says of itself."""

    name: str
    public_ip: str
    pod_cidrs: tuple[str, ...]


class Cluster:
    """One API server. Every method raises ApiError, in bounded time."""

    def __init__(self, access: Access, names: Names) -> None:
        self.url = access.url
        self._names = names
        self._api = Api(access, REQUEST_S)
        self._client = httpx2.AsyncClient(
            base_url=access.url,
            auth=access.auth,
            verify=access.verify,
            timeout=REQUEST_S,
            headers={"User-Agent": f"udp-backend/{__version__}", "Accept": "application/json"},
        )

    async def close(self) -> None:
        """Ends all connections."""
        await self._client.aclose()
        await self._api.close()

    async def may(self, verb: str, resource: str, subresource: str = "") -> Verdict:
        """Whether we are allowed to."""
        asked = {"verb": verb, "resource": resource, "subresource": subresource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        path = "apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return self._decoded(await self._asked("POST", path, json=review), Review).status

    async def node(self, name: str) -> NodeHealth:
        """One node."""
        return self._decoded(await self._asked("GET", f"api/v1/nodes/{name}"), NodeHealth)

    async def nodes(self) -> list[Claimant]:
        """All nodes that are part of the overlay."""
        return [it async for it in self._claimants()]

    async def _claimants(self) -> AsyncIterator[Claimant]:
        async with aclosing(self._api.pages()) as pages:
            async for page in pages:
                for node in page.items:
                    if node.said.get(self._names.managed) == "true":
                        cidrs = node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())
                        yield Claimant(node.name, node.said.get(self._names.public_ip, ""), cidrs)

    async def _asked(self, method: str, path: str, **request: Any) -> bytes:
        try:
            response = await self._client.request(method, path, **request)
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise ApiError(f"no contact with the API server {self.url}: {error or type(error).__name__}") from None
        if response.is_success:
            return response.content
        try:
            message = msgspec.json.decode(response.content, type=Status).message
        except UNREADABLE:
            message = response.reason_phrase
        raise ApiError(f"the API server {self.url} answers {response.status_code}: {message}", response.status_code)

    def _decoded(self, data: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except UNREADABLE as error:
            raise ApiError(f"the API server {self.url} gives a strange answer: {error}") from None


async def connect(settings: Settings) -> Cluster:
    """By the same settings as the daemon's. Raises ConfigError."""
    return Cluster(await aside(find_access)(settings), Names.under(settings.kube_annotation_prefix))
