"""Being let in by a real API server: a URL, a kubeconfig, what a pod finds; tokens that change, and TLS."""

import asyncio
import json
import shutil
import ssl

import pytest
import yaml
from etcd_server import Authority
from kube_api import KubeApi, node
from kube_registry import QUICK, become, opened, refusal, settings, watched

from udpbackend.backends.backend import check_config
from udpbackend.errors import UsageError
from udpbackend.subnets.kube import access, manager

A = node("a", "10.244.1.0/24")
FIRST, SECOND, THIRD, FOURTH = "first", "second", "third", "fourth"
"""Bearer tokens."""


@pytest.fixture
async def api():
    async with KubeApi(A) as served:
        yield served


@pytest.mark.parametrize(
    "url", ["192.0.2.1:6443", "ftp://x", "https://", "http://x/?a", "http://[::1", "https://x:y", "x", "https://x\n"]
)
async def test_a_url_is_refused(api, tmp_path, url):
    assert await refusal(settings(api, tmp_path, kube_api_url=url), error=UsageError) == (
        f"--kube-api-url: expected a URL, like https://192.0.2.7:6443, got {url!r}"
    )


def kubeconfig(tmp_path, server, user=None, context=None):
    path = tmp_path / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}] if user else [],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", **({"user": "u"} if user else {}), **(context or {})}}
        ],
    }
    path.write_text(yaml.safe_dump(document))
    return path


async def test_a_url_with_a_password_is_refused_and_not_repeated(api, tmp_path):
    said = await refusal(settings(api, tmp_path, kube_api_url="https://me:hidden@192.0.2.7"), error=UsageError)
    assert said.startswith("--kube-api-url: expected a URL without a user in it")
    assert "hidden" not in said


async def test_a_kubeconfig_without_a_user(api, tmp_path):
    async with opened(settings(api, tmp_path, kubeconfig_file=kubeconfig(tmp_path, api.url))) as registry:
        assert registry.state.source == api.url


async def test_a_url_counts_more_than_that_of_the_kubeconfig(api, tmp_path):
    path = kubeconfig(tmp_path, "http://192.0.2.1:1", {"token": FIRST})
    api.token = FIRST
    async with opened(settings(api, tmp_path, kubeconfig_file=path, kube_api_url=api.url)) as registry:
        assert registry.state.source == api.url


async def test_a_rotated_token_is_read_again(api, tmp_path):
    (tmp_path / "token").write_text("first\n")
    api.token = FIRST
    path = kubeconfig(tmp_path, api.url, {"tokenFile": "token"})
    async with watched(settings(api, tmp_path, kubeconfig_file=path)) as it:
        await it.next()
        await api.watched()
        api.token = SECOND
        api.drop_watches()
        await it.until(lambda state: state.degraded and "401 Unauthorized" in state.degraded)
        (tmp_path / "token").write_text("second\n")
        await it.until(lambda state: state.degraded is None)
        api.token = THIRD
        (tmp_path / "token").write_text("third\n")
        api.drop_watches()
        await api.until(lambda: api.of("LIST")[-1].headers["Authorization"] == "Bearer third")
        await api.watched()
        (tmp_path / "token").unlink()
        api.token = FOURTH
        api.drop_watches()
        await it.until(lambda state: state.degraded and "Token file" in state.degraded)
        assert it.quiet


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    return Authority(tmp_path_factory.mktemp("certificates") / "ca")


@pytest.fixture
async def secure(authority):
    """An API server with TLS and a token."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.server.cert, authority.server.key)
    async with KubeApi(A, tls=tls) as served:
        served.token = FIRST
        yield served


async def test_in_a_pod(secure, tmp_path, authority, monkeypatch):
    monkeypatch.setattr(access, "SERVICE_ACCOUNT", str(tmp_path))
    given = settings(secure, tmp_path, kube_api_url=None)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert (await refusal(given)).startswith("in-cluster configuration: KUBERNETES_SERVICE_HOST and")
    host, port = secure.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    assert str(tmp_path / "token") in await refusal(given)
    (tmp_path / "token").write_text(FIRST)
    (tmp_path / "namespace").write_text("kube-flannel")
    assert str(tmp_path / "ca.crt") in await refusal(given)
    shutil.copy(authority.ca.cert, tmp_path / "ca.crt")
    async with watched(given) as it:
        assert await it.names() == {"a"}
        assert it.registry.state.source == secure.url
        await secure.watched()
        # A kubelet puts a new token in the place of the old one well before that is no longer taken.
        (tmp_path / "new").write_text(SECOND)
        (tmp_path / "new").replace(tmp_path / "token")
        secure.token = SECOND
        secure.drop_watches()
        await secure.until(lambda: secure.of("WATCH")[-1].headers["Authorization"] == f"Bearer {SECOND}")
        await it.until(lambda state: state.degraded is None)
        assert it.quiet


async def test_a_server_that_is_not_the_clusters_is_not_spoken_to(secure, tmp_path):
    registry = manager.KubeSubnets(settings(secure, tmp_path), {}, QUICK)
    opening = asyncio.create_task(registry.open(check_config))
    await become(registry, lambda state: state.degraded)
    assert "certificate verify failed" in registry.state.degraded
    opening.cancel()
    await asyncio.wait((opening,))
    await registry.close()
    assert not secure.asked


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "clusters: []", "a: b", json.dumps({"clusters": [{"name": 1}], "contexts": []}), "\0"],
)
async def test_a_file_that_is_no_kubeconfig_is_refused(api, tmp_path, text):
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    assert (await refusal(settings(api, tmp_path, kubeconfig_file=path))).startswith(f"--kubeconfig-file {path}: ")


async def test_a_kubeconfig_that_is_not_there_is_refused(api, tmp_path):
    path = tmp_path / "nothing"
    assert str(path) in await refusal(settings(api, tmp_path, kubeconfig_file=path))


@pytest.mark.parametrize("context", [{"cluster": "other"}, {"user": "other"}])
async def test_a_kubeconfig_that_names_what_it_lacks_is_refused(api, tmp_path, context):
    said = await refusal(settings(api, tmp_path, kubeconfig_file=kubeconfig(tmp_path, api.url, context=context)))
    assert said.endswith("expected 'other', which is not there")


async def test_a_token_file_that_is_not_there_is_refused(api, tmp_path):
    path = kubeconfig(tmp_path, api.url, {"tokenFile": "nothing"})
    assert "nothing" in await refusal(settings(api, tmp_path, kubeconfig_file=path))


async def test_a_proxy_in_the_environment_is_not_used(api, tmp_path, monkeypatch):
    """The API server is part of the cluster; a proxy for the world outside must not cut us off from it."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with watched(settings(api, tmp_path)) as it:
        assert len((await it.next()).leases) == 1
