"""What `doctor` finds out from an API server of Kubernetes, asked over real HTTP."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from doctor_api import ReviewingApi
from doctored_facts import doctor_facts
from kube_api import joined, node

from udpbackend.doctor.checks import clock, duplicates, kube_rights, node_ready
from udpbackend.findings.finding import Finding, NotChecked
from udpbackend.settings import Settings

CNI_MESSAGE = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: cni plugin not initialized"
)


def condition(kind, status, reason="R", message=""):
    return {"type": kind, "status": status, "reason": reason, "message": message}


def well(name, cidr, public_ip, *conditions, **more):
    """A node that is ready, but for what `conditions` say."""
    it = joined(name, cidr, public_ip, **more)
    held = {"Ready": condition("Ready", "True")} | {found["type"]: found for found in conditions}
    it["status"]["conditions"] = list(held.values())
    return it


@asynccontextmanager
async def cluster(*nodes, forbidden=(), **settings):
    async with ReviewingApi(*nodes, forbidden=lambda: frozenset(forbidden)) as api:
        yield api, doctor_facts(settings=Settings(kube_api_url=api.url, node_name="a", **settings))


async def test_a_healthy_node_has_no_findings():
    nodes = [well("a", "10.244.0.0/24", "192.0.2.1"), well("b", "10.244.1.0/24", "192.0.2.2")]
    async with cluster(*nodes) as (api, facts):
        for check in (kube_rights, node_ready, duplicates):
            assert await check.look(facts) == []
        assert await clock.look(facts) == []
        assert {it.method for it in api.asked} <= {"GET", "POST"}, "nothing is written"


@pytest.mark.parametrize("right", ["patch nodes/status", "list nodes", "watch nodes", "get nodes"])
async def test_a_right_that_is_missing_is_named(right):
    async with cluster(forbidden=[right]) as (api, facts):
        (finding,) = await kube_rights.look(facts)
    assert finding.severity == "down"
    assert finding.evidence == f"{api.url} says that it may not {right}"
    assert "nodes/status: patch" in finding.cure


async def test_a_token_that_is_not_taken():
    async with cluster() as (api, facts):
        for kind in ("POST", "GET"):
            api.fail(kind, 401, "Unauthorized")
        (finding,) = await kube_rights.look(facts)
        (gap,) = await node_ready.look(facts)
    assert finding.evidence == f"the API server {api.url} answers 401: Unauthorized"
    assert gap == NotChecked(f"the node 'a' cannot be read: {finding.evidence}")


async def test_a_server_that_is_away():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        facts = doctor_facts(settings=Settings(kube_api_url=url))
        (finding,) = await kube_rights.look(facts)
    assert isinstance(finding, Finding)
    assert finding.evidence.startswith(f"no contact with the API server {url}: ")
    assert kube_rights.unasked("so", running=True) == NotChecked("so"), "the daemon has another way to it"


async def test_without_a_way_to_the_server(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    facts = doctor_facts(settings=Settings(kube_subnet_mgr=True))
    for check in (kube_rights, node_ready, duplicates):
        (gap,) = await check.look(facts)
        assert isinstance(gap, NotChecked)
        assert "expected to run in a pod" in gap.why
    for check in (kube_rights, node_ready):
        assert await check.look(doctor_facts()) == [NotChecked("Kubernetes is not in use")]


@pytest.mark.parametrize(
    ("message", "cure"), [(CNI_MESSAGE, "CNI configuration"), ("Kubelet stopped posting node status.", "journalctl")]
)
async def test_a_node_that_is_not_ready_in_its_own_words(message, cure):
    it = well("a", "10.244.0.0/24", "192.0.2.1", condition("Ready", "False", "KubeletNotReady", message))
    async with cluster(it) as (_, facts):
        (finding,) = await node_ready.look(facts)
    assert finding.what == "the node a is NotReady"
    assert finding.evidence == f"Ready is False: KubeletNotReady: {message}"
    assert cure in finding.cure


async def test_an_unavailable_network_and_a_missing_pod_cidr():
    it = node("a")
    it["status"]["conditions"] = [condition("NetworkUnavailable", "True", "NoRouteCreated", "Node created")]
    async with cluster(it) as (_, facts):
        unavailable, missing = await node_ready.look(facts)
    assert unavailable.evidence == "NetworkUnavailable is True: NoRouteCreated: Node created"
    assert missing.what == "the node a has no podCIDR, so the daemon gets no subnet"


async def test_a_node_that_is_not_there(monkeypatch):
    monkeypatch.setenv("NODE_NAME", "elsewhere")
    async with ReviewingApi() as api:
        facts = doctor_facts(settings=Settings(kube_api_url=api.url))
        (gap,) = await node_ready.look(facts)
    assert (
        gap.why
        == f"the node 'elsewhere' cannot be read: the API server {api.url} answers 404: nodes \"elsewhere\" not found"
    )


async def test_nodes_that_claim_the_same():
    """The registry leaves such nodes out, so that no daemon shows them."""
    nodes = [
        well("a", "10.244.0.0/24", "10.0.2.15"),
        well("b", "10.244.1.0/24", "10.0.2.15"),
        well("c", "10.244.1.128/25", "192.0.2.3"),
        node("of-another-network", "10.244.0.0/24"),
    ]
    async with cluster(*nodes) as (_, facts):
        address, subnet = await duplicates.look(facts)
    assert address.evidence == "10.0.2.15 is that of a with 10.244.0.0/24 and b with 10.244.1.0/24"
    assert subnet.evidence == "10.244.1.0/24 of b and 10.244.1.128/25 of c"


async def test_nodes_come_in_pages():
    nodes = [
        well(f"n{i}", f"10.{i // 256}.{i % 256}.0/24", "10.0.2.15" if i in (3, 599) else f"192.0.{i // 250}.{i % 250}")
        for i in range(600)
    ]
    async with cluster(*nodes) as (api, facts):
        (finding,) = await duplicates.look(facts)
        assert len(api.of("LIST")) > 1
    assert "n3 with" in finding.evidence
    assert "n599 with" in finding.evidence


async def test_an_answer_that_makes_no_sense():
    async def strange(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a": 1')
        writer.close()

    async with await asyncio.start_server(strange, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        facts = doctor_facts(settings=Settings(kube_api_url=url))
        (gap,) = await node_ready.look(facts)
        assert "gives a strange answer" in gap.why
        (gap,) = await clock.look(facts)
        assert gap.why == f"{url} cannot be asked for the time: its answer bears no date"
