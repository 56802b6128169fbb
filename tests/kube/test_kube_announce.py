"""What is written to our own node through a real API server: as flannel does, only if it differs, again when lost."""

import asyncio
from contextlib import nullcontext
from ipaddress import IPv4Address, IPv6Address

import pytest
from kube_api import FLANNEL, KubeApi, node
from kube_registry import ADDRESS, DEADLINE_S, DUAL_CONF, QUICK, UDP, opened, settings, unwatched, watched
from soundness import sound

from udpbackend.errors import ConfigError, HostError, RestartNeededError
from udpbackend.model import Attributes
from udpbackend.subnets.kube.contact import Backoff

A = node("a", "10.244.1.0/24")
UDP_TEXTS = {"kube-subnet-manager": "true", "backend-type": "", "backend-data": "null", "public-ip": "192.0.2.1"}
MAC = b'{"VNI":1,"VtepMAC":"c6:d2:3a:00:00:01"}'
VXLAN = Attributes(ADDRESS, backend_type="vxlan", backend_data=MAC)


@pytest.fixture
async def api():
    async with KubeApi(A) as served:
        yield served


def under_flannel(texts):
    return {FLANNEL + key: text for key, text in texts.items()}


@pytest.mark.parametrize(
    ("attributes", "texts"),
    [
        (UDP, UDP_TEXTS),
        (VXLAN, {**UDP_TEXTS, "backend-type": "vxlan", "backend-data": MAC.decode()}),
        (Attributes(ADDRESS, backend_type="host-gw"), {**UDP_TEXTS, "backend-type": "host-gw"}),
        (
            Attributes(ADDRESS, backend_data=b'{"udpbackend":1,"ipv6":true}'),
            {**UDP_TEXTS, "backend-data": '{"udpbackend":1,"ipv6":true}'},
        ),
        (
            Attributes(ADDRESS, IPv6Address("2001:db8::1"), "vxlan", MAC, b'{"VNI":1,"VtepMAC":"c6:d2:3a:00:00:02"}'),
            {
                **UDP_TEXTS,
                "backend-type": "vxlan",
                "backend-data": MAC.decode(),
                "backend-v6-data": '{"VNI":1,"VtepMAC":"c6:d2:3a:00:00:02"}',
                "public-ipv6": "2001:db8::1",
            },
        ),
    ],
    ids=["udp", "vxlan", "host-gw", "udp with IPv6 inside", "vxlan over both"],
)
async def test_annotations_are_flannels(api, tmp_path, attributes, texts):
    async with opened(settings(api, tmp_path)) as registry:
        lease = await registry.acquire(attributes)
    (patch,) = api.of("PATCH")
    assert patch.path == "/api/v1/nodes/a/status"
    assert patch.headers["Content-Type"] == "application/strategic-merge-patch+json"
    assert patch.body == {"metadata": {"annotations": under_flannel(texts)}}
    assert (lease.backend_type, lease.backend_data) == (attributes.backend_type, attributes.backend_data or b"null")
    assert (lease.node, str(lease.subnet), lease.public_address) == ("a", "10.244.1.0/24", ADDRESS)


async def test_annotations_are_written_only_when_they_differ(api, tmp_path):
    api.put(node("a", "10.244.1.0/24", annotations=UDP_TEXTS))
    async with opened(settings(api, tmp_path)) as registry:
        await registry.acquire(UDP)
        assert not api.of("PATCH")
    async with opened(settings(api, tmp_path)) as registry:
        await registry.acquire(Attributes(IPv4Address("192.0.2.9")))
    (patch,) = api.of("PATCH")
    assert patch.body == {"metadata": {"annotations": under_flannel({"public-ip": "192.0.2.9"})}}


async def test_the_prefix_is_the_operators(api, tmp_path):
    async with opened(settings(api, tmp_path, kube_annotation_prefix="example.org/net")) as registry:
        await registry.acquire(UDP)
    (patch,) = api.of("PATCH")
    assert patch.body["metadata"]["annotations"] == {f"example.org/net-{key}": it for key, it in UDP_TEXTS.items()}


async def test_an_overwrite_is_for_the_peers(api, tmp_path):
    wish = {"public-ip-overwrite": "198.51.100.7", "public-ipv6-overwrite": "2001:db8::7"}
    api.put(node("a", "10.244.1.0/24", annotations=wish))
    both = Attributes(ADDRESS, IPv6Address("2001:db8::1"), "host-gw")
    async with opened(settings(api, tmp_path)) as registry:
        lease = await registry.acquire(both)
        assert lease.public_address == ADDRESS
        assert lease.public_ipv6 == int(IPv6Address("2001:db8::1"))
    assert api.annotations("a") | wish == api.annotations("a")
    assert (api.annotations("a")["public-ip"], api.annotations("a")["public-ipv6"]) == ("198.51.100.7", "2001:db8::7")
    async with opened(settings(api, tmp_path)) as registry:
        await registry.acquire(both)
    assert len(api.of("PATCH")) == 1


async def test_an_overwrite_that_is_no_address_is_refused(api, tmp_path):
    api.put(node("a", "10.244.1.0/24", annotations={"public-ip-overwrite": "me"}))
    async with opened(settings(api, tmp_path)) as registry:
        with pytest.raises(ConfigError, match="public-ip-overwrite: expected an IPv4 address, got 'me'"):
            await registry.acquire(UDP)
    assert not api.of("PATCH")


async def test_node_public_ip_is_what_the_host_is_to_be_known_by(api, tmp_path):
    api.put(node("a", "10.244.1.0/24", annotations={"node-public-ip": "192.0.2.8", "node-public-ipv6": "2001:db8::8"}))
    async with opened(settings(api, tmp_path)) as registry:
        assert registry.public_addresses == (IPv4Address("192.0.2.8"), IPv6Address("2001:db8::8"))


async def test_a_patch_is_tried_again(api, tmp_path):
    api.fail("PATCH", 500, "etcdserver: request timed out", times=2)
    api.fail("PATCH")
    async with opened(settings(api, tmp_path)) as registry:
        await registry.acquire(UDP)
    assert api.annotations("a") == UDP_TEXTS
    assert len(api.of("PATCH")) == 4


async def test_a_patch_is_given_up_after_a_while(api, tmp_path):
    api.fail("PATCH", 500, "no space left", times=1000)
    async with opened(settings(api, tmp_path), QUICK._replace(patch_for_s=1.0)) as registry:
        with pytest.raises(HostError) as caught:
            await registry.acquire(UDP)
    refused = f"the API server {api.url} refuses to patch nodes/status: 500 no space left"
    assert str(caught.value) == f'timeout contacting kube-api, failed to patch node "a". Error: {refused}'
    assert len(api.of("PATCH")) > 2


async def test_a_forbidden_patch_says_what_is_missing(api, tmp_path):
    api.fail("PATCH", 403, 'nodes "a" is forbidden: User "sa" cannot patch resource "nodes/status"')
    async with opened(settings(api, tmp_path)) as registry:
        with pytest.raises(HostError) as caught:
            await registry.acquire(UDP)
    assert f"the API server {api.url} forbids to patch nodes/status: nodes" in str(caught.value)
    assert "expected a ClusterRole with the verb patch on nodes/status" in str(caught.value)
    assert len(api.of("PATCH")) == 1


async def test_the_condition_is_set_once_packets_flow(api, tmp_path):
    api.change("a", lambda it: it["status"].update(conditions=[{"type": "Ready", "status": "True"}]))
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        assert len(api.of("PATCH")) == 1
        api.fail("PATCH", 500, "later", times=3)
        await it.registry.complete(sound())
    *_, patch = api.of("PATCH")
    assert patch.path == "/api/v1/nodes/a/status"
    assert patch.headers["Content-Type"] == "application/strategic-merge-patch+json"
    (condition,) = patch.body["status"]["conditions"]
    assert condition.pop("lastHeartbeatTime") == condition.pop("lastTransitionTime")
    assert condition == {
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "FlannelIsUp",
        "message": "Flannel is running on this node",
    }
    assert [one["type"] for one in api.nodes["a"]["status"]["conditions"]] == ["Ready", "NetworkUnavailable"]


async def test_a_condition_that_was_set_in_the_end_is_no_problem_any_more(api, tmp_path):
    """Though nothing about our node changes after that: nobody looks at it again."""
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.fail("PATCH", 500, "not now", times=3)
        await it.registry.complete(sound())
        assert it.registry.state.degraded is None


async def test_the_condition_is_set_only_while_it_is_true(api, tmp_path):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        flows = asyncio.Event()
        told = asyncio.create_task(it.registry.complete(flows))
        api.put(node("b", "10.244.2.0/24", annotations={**UDP_TEXTS, "public-ip": "192.0.2.2"}))
        await it.next()
        assert len(api.of("PATCH")) == 1
        flows.set()
        await told
        assert len(api.of("PATCH")) == 2
        flows.clear()  # and a node object that takes the place of ours gets it when it is true again
        api.delete("a")
        api.put(node("a", "10.244.1.0/24", uid="another"))
        await api.until(lambda: "a" in api.nodes and api.annotations("a") == UDP_TEXTS)
        assert not api.nodes["a"]["status"].get("conditions")
        flows.set()
        await api.until(lambda: api.nodes["a"]["status"].get("conditions"))


async def test_the_condition_can_be_left_alone(api, tmp_path):
    async with watched(settings(api, tmp_path, set_node_network_unavailable=False)) as it:
        await it.next()
        await it.registry.complete(sound())
    assert len(api.of("PATCH")) == 1


async def test_lost_annotations_are_written_again(api, tmp_path):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.fail("PATCH", 500, "not now", times=3)
        api.change("a", lambda node: node["metadata"].update(annotations={}))
        await api.until(lambda: api.annotations("a") == UDP_TEXTS)
        api.change("a", lambda node: node["metadata"]["annotations"].update({FLANNEL + "public-ip-overwrite": "x"}))
        api.change(
            "a", lambda node: node["metadata"]["annotations"].update({FLANNEL + "public-ip-overwrite": "1.2.3.4"})
        )
        await api.until(lambda: api.annotations("a")["public-ip"] == "1.2.3.4")
        assert it.quiet


async def test_what_a_busy_server_asks_for_is_waited_before_the_next_patch(api, tmp_path, monkeypatch):
    least = []
    monkeypatch.setattr(Backoff, "next_s", lambda _, at_least_s=0.0: least.append(at_least_s) or 0.0)
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        api.fail("PATCH", 429, "too many requests", retry_after="7")
        await it.registry.complete(sound())
        assert least == [7]
        api.fail("PATCH", 429, "too many requests", retry_after="8")
        api.change("a", lambda node: node["metadata"].update(annotations={}))
        await api.until(lambda: api.annotations("a") == UDP_TEXTS)
        assert least == [7, 8]


async def test_a_node_made_anew_gets_annotations_and_condition(api, tmp_path):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await it.registry.complete(sound())
        await api.watched()
        api.delete("a")
        api.put(node("a", "10.244.1.0/24", uid="another"))
        await api.until(lambda: "a" in api.nodes and api.nodes["a"]["status"].get("conditions"))
        assert api.annotations("a") == UDP_TEXTS
        assert it.quiet


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda it: it["spec"].update(podCIDR="10.244.7.0/24", podCIDRs=["10.244.7.0/24"]),
            "the podCIDR of node a has changed from 10.244.1.0/24 to 10.244.7.0/24",
        ),
        (
            lambda it: it["metadata"]["annotations"].update({FLANNEL + "node-public-ip": "192.0.2.77"}),
            "the public address of node a has changed from nothing to 192.0.2.77",
        ),
    ],
    ids=["podCIDR", "address"],
)
@pytest.mark.parametrize("watching", [True, False], ids=["watched", "missed"])
async def test_another_subnet_or_address_of_our_own_needs_a_new_start(api, tmp_path, change, text, watching):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        async with nullcontext() if watching else unwatched(api, it):
            api.change("a", change)
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(RestartNeededError, match=text):
                await it.running


@pytest.mark.parametrize("watching", [True, False], ids=["watched", "missed"])
async def test_a_node_made_anew_with_another_podcidr_needs_a_new_start(api, tmp_path, watching):
    """Its kubelet makes it without one; the cluster gives it one later."""
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        async with nullcontext() if watching else unwatched(api, it):
            api.delete("a")
            api.put(node("a", uid="another"))
        await api.until(lambda: api.annotations("a") == UDP_TEXTS)
        assert not it.running.done()
        api.change("a", lambda node: node["spec"].update(podCIDR="10.244.7.0/24", podCIDRs=["10.244.7.0/24"]))
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(RestartNeededError, match=r"from 10\.244\.1\.0/24 to 10\.244\.7\.0/24"):
                await it.running


async def test_a_subnet_of_our_own_that_makes_no_sense_is_not_followed(api, tmp_path, caplog):
    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        for cidrs, text in [
            ([], "pod cidr not assigned"),
            (["172.16.0.0/24"], "doesn't contain"),
            (["10.244.1.0/24"], None),
        ]:
            api.change("a", lambda node, cidrs=cidrs: node["spec"].update(podCIDR=(cidrs or [""])[0], podCIDRs=cidrs))
            await it.until(lambda state, text=text: text in state.degraded if text and state.degraded else not text)
        api.change("a", lambda node: node["metadata"].update(annotations={}))
        await api.until(lambda: api.annotations("a") == UDP_TEXTS)
        assert not it.running.done()
        assert it.quiet


async def test_vxlan_keeps_its_mac(api, tmp_path):
    async with opened(settings(api, tmp_path)) as registry:
        held = await registry.held(ADDRESS)
        assert (held.backend_type, held.backend_data) == ("udp", b"null")
        await registry.acquire(VXLAN)
    async with opened(settings(api, tmp_path)) as registry:
        held = await registry.held(ADDRESS)
        assert (held.backend_type, held.backend_data) == ("vxlan", MAC)
        assert held.public_address == ADDRESS


async def test_a_dual_stack_node_has_both_subnets(api, tmp_path):
    api.put(node("a", "10.244.1.0/24", "fd00:10:0:1::/64"))
    async with watched(settings(api, tmp_path, DUAL_CONF), QUICK) as it:
        assert str(it.own.ipv6_subnet) == "fd00:10:0:1::/64"
        assert (await it.next()).leases == (it.own,)
