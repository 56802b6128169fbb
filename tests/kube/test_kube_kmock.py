"""The same client against an API server that others wrote: kmock is no work of ours and so has no mistake of ours.

It knows no versions, no pages and no strategic merge, so only what it does know is asked of it.
"""

from types import SimpleNamespace

import httpx2
from kube_api import FLANNEL, joined, node
from kube_registry import settings, watched

NODES = "v1/nodes"


async def test_nodes_of_another_implementation_are_followed(kmock, tmp_path):
    kmock.resources[NODES] = {
        "kind": "Node",
        "namespaced": False,
        "verbs": {"get", "list", "watch", "patch"},
        "subresources": {"status"},
    }
    kmock.objects[NODES, None, "a"] = node("a", "10.244.1.0/24")
    kmock.objects[NODES, None, "b"] = joined("b", "10.244.2.0/24", "192.0.2.2")
    url = str(kmock.url).rstrip("/")
    async with watched(settings(SimpleNamespace(url=url), tmp_path)) as it, httpx2.AsyncClient() as other:
        assert await it.names() == {"a", "b"}
        await other.post(f"{url}/api/v1/nodes", json=joined("c", "10.244.3.0/24", "192.0.2.3"))
        assert await it.names() == {"a", "b", "c"}
        await other.delete(f"{url}/api/v1/nodes/b")
        assert await it.names() == {"a", "c"}
        assert it.registry.state.degraded is None
    assert kmock.objects[NODES, None, "a"]["metadata"]["annotations"][FLANNEL + "public-ip"] == "192.0.2.1"
    patches = kmock["patch /api/v1/nodes/a/status"]
    assert len(patches) == 1
    assert patches[0].headers["Content-Type"] == "application/strategic-merge-patch+json"
