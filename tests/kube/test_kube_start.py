"""Starting with a real API server: who we are, what is refused and what is waited for."""

import asyncio
import contextlib

import pytest
from kube_api import KubeApi, node
from kube_registry import ADDRESS, become, opened, refusal, settings

from udpbackend.backends.backend import check_config
from udpbackend.errors import HostError, UsageError
from udpbackend.subnets.kube import manager

A = node("a", "10.244.1.0/24")


@pytest.fixture
async def api():
    async with KubeApi(A) as served:
        yield served


async def test_the_node_is_known_from_the_environment(api, tmp_path):
    async with opened(settings(api, tmp_path, node_name=None), environ={"NODE_NAME": "a"}) as registry:
        assert (await registry.held(ADDRESS)).node == "a"


async def test_the_node_is_found_through_our_pod(api, tmp_path):
    api.pods["flannel-x"] = {"metadata": {"name": "flannel-x"}, "spec": {"nodeName": "a", "containers": []}}
    environ = {"POD_NAME": "flannel-x", "POD_NAMESPACE": "kube-flannel"}
    api.fail("GET", 500, "not yet", times=2)
    async with opened(settings(api, tmp_path, node_name=None), environ=environ) as registry:
        assert (await registry.held(ADDRESS)).node == "a"
    assert api.asked[0].path == "/api/v1/namespaces/kube-flannel/pods/flannel-x"
    api.pods["flannel-x"]["spec"] = {}
    said = await refusal(settings(api, tmp_path, node_name=None), environ, HostError)
    assert said == "node name not present in pod spec 'kube-flannel/flannel-x'"
    del api.pods["flannel-x"]
    said = await refusal(settings(api, tmp_path, node_name=None), environ, HostError)
    assert said.startswith("error retrieving pod spec for 'kube-flannel/flannel-x': ")
    assert said.endswith('404 pods "flannel-x" not found')


@pytest.mark.parametrize("environ", [{}, {"POD_NAME": "x"}, {"POD_NAMESPACE": "x"}])
async def test_nobody_says_who_we_are(api, tmp_path, environ):
    said = await refusal(settings(api, tmp_path, node_name=None), environ)
    assert said.startswith("env variables POD_NAME and POD_NAMESPACE must be set")
    assert not api.asked


async def test_a_node_that_is_not_there_is_refused(api, tmp_path):
    said = await refusal(settings(api, tmp_path, node_name="z"), error=HostError)
    assert said == f'the API server {api.url} refuses to get nodes: 404 nodes "z" not found'


async def test_a_forbidden_node_is_refused(api, tmp_path):
    api.fail("GET", 403, "no")
    assert "forbids to get nodes: no (expected a ClusterRole with the verb get on nodes" in await refusal(
        settings(api, tmp_path), error=HostError
    )


@pytest.mark.parametrize(
    ("cidrs", "said"),
    [
        (
            ["172.16.0.0/24"],
            (
                'subnet "10.244.0.0/16" specified in the flannel net config doesn\'t contain "172.16.0.0/24" PodCIDR '
                'of the "a" node'
            ),
        ),
        (["10.244.1.0/24", "10.244.2.0/24", "fd00::/64"], 'node "a" pod cidrs should be IPv4/IPv6 only or dualstack'),
        (["10.244.1.0/24", "10.244.2.0/24"], 'node "a" pod cidrs should be IPv4/IPv6 only or dualstack'),
        (["fd00::/64"], 'node "a" has no IPv4 podCIDR, got fd00::/64'),
        (["10.244.1.0"], "node \"a\" podCIDR: invalid CIDR '10.244.1.0'"),
        (["10.244.1.0/31"], 'node "a" podCIDR 10.244.1.0/31: expected /30 or larger'),
        (
            ["10.244.1.0/24", "fd00::/64"],
            'subnet "fd00::/64" specified in the PodCIDR, but doesn\'t exist in the flannel net config of the "a" node',
        ),
    ],
)
async def test_podcidrs_that_cannot_be_are_refused(api, tmp_path, cidrs, said):
    api.put(node("a", *cidrs))
    assert (await refusal(settings(api, tmp_path))).startswith(said)


async def test_the_net_conf_is_refused(api, tmp_path):
    given = settings(api, tmp_path)
    given.net_config_path.write_text('{"Network": "10.244.0.0/40"}')
    assert (await refusal(given)).startswith(f"error parsing subnet config: {given.net_config_path}: Network: ")
    given.net_config_path.unlink()
    said = f"failed to read net conf: {given.net_config_path}: No such file or directory"
    assert await refusal(given) == said
    assert not api.asked


async def test_an_annotation_prefix_is_refused(api, tmp_path):
    said = await refusal(settings(api, tmp_path, kube_annotation_prefix="flannel"), error=UsageError)
    assert said == "subnet/kube: prefix must be in a format: fqdn/[0-9a-z-_]*: got 'flannel' (--kube-annotation-prefix)"


async def test_an_api_server_that_is_away_is_waited_for(tmp_path):
    async with KubeApi(A) as api:
        given = settings(api, tmp_path)
        await api.stop()
        registry = manager.KubeSubnets(given, {}, manager.Timing(first_s=0.01, most_s=0.02))
        opening = asyncio.create_task(registry.open(check_config))
        await become(registry, lambda state: state.degraded)
        assert registry.state.degraded.endswith("Connection refused")
        assert (registry.state.last_sync, registry.state.revision) == (0.0, 0)
        await api.start()
        assert str((await opening).network) == "10.244.0.0/16"
        assert registry.state.degraded is None
        await registry.close()


async def test_an_api_server_that_answers_too_late_is_waited_for(api, tmp_path):
    api.silent = True
    timing = manager.Timing(first_s=0.01, most_s=0.02, request_s=0.3)
    registry = manager.KubeSubnets(settings(api, tmp_path), {}, timing)
    opening = asyncio.create_task(registry.open(check_config))
    await become(registry, lambda state: state.degraded)
    assert "is silent" in registry.state.degraded
    api.silent = False
    assert str((await opening).network) == "10.244.0.0/16"
    assert registry.state.degraded is None
    await registry.close()


async def test_a_podcidr_that_is_not_assigned_yet_is_waited_for(api, tmp_path, caplog):
    api.put(node("a"))
    registry = manager.KubeSubnets(settings(api, tmp_path), {}, manager.Timing(first_s=0.01, most_s=0.02))
    await registry.open(check_config)
    held = asyncio.create_task(registry.held(ADDRESS))
    await become(registry, lambda state: state.degraded)
    assert registry.state.degraded == 'node "a" pod cidr not assigned'
    await api.asked_for("GET", 5)
    assert not held.done()
    api.put(A)
    assert str((await held).subnet) == "10.244.1.0/24"
    assert registry.state.degraded is None
    assert [it.message for it in caplog.records if it.levelname == "WARNING"] == [
        'node "a" pod cidr not assigned: waiting for it'
    ], "told once, however often it is asked for"
    await registry.close()


async def test_closing_before_and_during_open_is_fine(tmp_path):
    async with KubeApi(A) as api:
        given = settings(api, tmp_path)
        await manager.KubeSubnets(given, {}).close()
        api.silent = True
        registry = manager.KubeSubnets(given, {})
        opening = asyncio.create_task(registry.open(check_config))
        await api.asked_for("GET", 1)
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
        await registry.close()
