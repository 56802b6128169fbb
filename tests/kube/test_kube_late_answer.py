"""A PATCH of our own node whose answer comes late: what a watch has told of the node meanwhile counts."""

import contextlib
import logging

import pytest
from kube_api import KubeApi, node
from kube_registry import settings, watched

UDP_TEXTS = {"kube-subnet-manager": "true", "backend-type": "", "backend-data": "null", "public-ip": "192.0.2.1"}


@pytest.fixture
async def api():
    async with KubeApi(node("a", "10.244.1.0/24")) as served:
        yield served


@contextlib.asynccontextmanager
async def late_answer(api, tmp_path, caplog):
    """A registry whose second PATCH is done and not answered yet; and a way to have that answer come and be heard."""
    caplog.set_level(logging.INFO)

    async def heard(count):
        await it.until(lambda _: caplog.text.count("now has the annotations") == count)

    async def answer():
        api.answer.set()
        await heard(2)

    async with watched(settings(api, tmp_path)) as it:
        await it.next()
        await api.watched()
        await heard(1)
        api.answer.clear()
        api.change("a", lambda node: node["metadata"].update(annotations={}))
        await api.until(lambda: api.annotations("a") == UDP_TEXTS)
        yield it, answer


async def test_a_late_answer_does_not_hide_that_our_node_was_deleted(api, tmp_path, caplog):
    async with late_answer(api, tmp_path, caplog) as (it, answer):
        api.delete("a")
        await it.until(lambda state: state.degraded and "the node a of this host was deleted" in state.degraded)
        await answer()
        assert "the node a of this host was deleted" in it.registry.state.degraded


async def test_a_late_answer_does_not_hide_that_annotations_were_lost_again(api, tmp_path, caplog):
    async with late_answer(api, tmp_path, caplog) as (it, _):
        api.change("a", lambda node: node["metadata"].update(annotations={}))
        version = api.nodes["a"]["metadata"]["resourceVersion"]
        await it.until(lambda _: it.registry._view.own.metadata.resource_version == version)
        api.answer.set()
        await api.until(lambda: api.annotations("a") == UDP_TEXTS)
