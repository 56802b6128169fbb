"""What 5,000 nodes of real size cost: memory while they are listed, and nothing for their heartbeats."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from kube_api import KubeApi, joined, node

PROGRAM = Path(__file__).with_name("follow_nodes.py")
NODES = 5000
NODE_BYTES = 20_000
LIMIT_MB = 150
READY_S = 60.0

IMAGES = [
    {
        "names": [f"registry.example/some/image-{i}@sha256:{'0123456789abcdef' * 4}", f"registry.example/image-{i}:v1"],
        "sizeBytes": 123456789 + i,
    }
    for i in range(115)
]


@pytest.fixture
async def large():
    """An API server with so many nodes; they share what makes them large, or the test itself would be heavy."""
    api = KubeApi(node("a", "10.0.0.0/24"))
    for i in range(1, NODES):
        subnet, address = f"10.{i >> 8}.{i & 255}.0/24", f"172.{16 + (i >> 8)}.{i & 255}.1"
        it = joined(f"n{i}", subnet, address)
        it["metadata"]["resourceVersion"] = "7"
        api.nodes[f"n{i}"] = {**it, "status": {"images": IMAGES}}
    assert len(json.dumps(api.nodes["n1"])) > NODE_BYTES
    async with api:
        yield api


@pytest.fixture
async def follower(large, tmp_path):
    net_conf = tmp_path / "net-conf.json"
    net_conf.write_text('{"Network": "10.0.0.0/8"}')
    command = (sys.executable, str(PROGRAM), large.url, str(net_conf))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


async def said(follower):
    async with asyncio.timeout(READY_S):
        line = await follower.stdout.readline()
    assert line, "the follower has ended"
    return json.loads(line)


async def test_many_nodes_cost_little_memory(large, follower, record_property):
    first = await said(follower)
    record_property("peak_mb", first["peak_mb"])
    assert first["nodes"] == NODES
    assert first["peak_mb"] < LIMIT_MB
    await large.watched()
    for i in range(1, 400):
        large.nodes[f"n{i}"]["metadata"]["resourceVersion"] = str(i)
        large._tell({"type": "MODIFIED", "object": large.nodes[f"n{i}"]})
    large.put(joined("last", "10.200.0.0/24", "172.100.0.1"))
    second = await said(follower)
    assert second["nodes"] == NODES + 1, "a heartbeat has made a snapshot"
    assert second["peak_mb"] < LIMIT_MB
