"""What lets us in, renewed in its files while we run: a client certificate, the cluster's authority, a kubeconfig."""

import logging
import shutil
import ssl

import pytest
import yaml
from aiohttp import web
from etcd_server import Authority
from kube_api import KubeApi, joined, node
from kube_registry import settings, watched

A = node("a", "10.244.1.0/24")
B = joined("b", "10.244.2.0/24", "192.0.2.2")
OLD, NEW = "old", "new"
"""Names in client certificates, and tokens."""


@pytest.fixture(autouse=True)
def told(caplog):
    caplog.set_level(logging.INFO, "udpbackend.subnets.kube")


class Mutual(KubeApi):
    """An API server that takes one client certificate only, as if others had run out."""

    takes = OLD

    async def _admit(self, request):
        certificate = request.transport.get_extra_info("peercert")
        if dict(pair for name in certificate["subject"] for pair in name)["commonName"] != self.takes:
            raise web.HTTPUnauthorized
        return await super()._admit(request)


@pytest.fixture
def authority(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    return Authority(tmp_path / "authority")


def served_by(authority, verify=ssl.CERT_NONE):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca.cert)
    tls.load_cert_chain(authority.server.cert, authority.server.key)
    tls.verify_mode = verify
    return tls


def kubeconfig(tmp_path, url, cluster, user):
    path = tmp_path / "kubeconfig"
    document = {
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": url, **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    replace(path, yaml.safe_dump(document).encode())
    return path


def replace(path, data):
    """As a kubelet does, so that nobody reads the half of it."""
    path.with_suffix(".next").write_bytes(data)
    path.with_suffix(".next").rename(path)


async def follows(api, it):
    await it.until(lambda state: state.degraded is None)
    api.put(B)
    assert await it.names() == {"a", "b"}


async def test_a_renewed_client_certificate(tmp_path, authority, caplog):
    made = {}
    for name in (OLD, NEW):
        pair = authority._make("client", name, signer=authority.ca)
        made[name] = (pair.cert.read_bytes(), pair.key.read_bytes())
    files = (tmp_path / "client-current.pem", tmp_path / "client-current.key")
    for file, data in zip(files, made[OLD], strict=True):
        replace(file, data)
    async with Mutual(A, tls=served_by(authority, ssl.CERT_REQUIRED)) as api:
        user = {"client-certificate": files[0].name, "client-key": files[1].name}
        path = kubeconfig(tmp_path, api.url, {"certificate-authority": str(authority.ca.cert)}, user)
        async with watched(settings(api, tmp_path, kubeconfig_file=path)) as it:
            await it.next()
            await api.watched()
            api.takes = NEW
            api.drop_watches()
            await it.until(lambda state: state.degraded and "401 Unauthorized" in state.degraded)
            replace(files[0], made[NEW][0])  # and its key a moment later
            await it.until(lambda _: "was changed and is no good" in caplog.text)
            replace(files[1], made[NEW][1])
            await follows(api, it)
    assert caplog.text.count("was changed and is no good") == 1
    assert caplog.text.count("was changed, and is used from now on") == 1


async def test_a_new_authority_of_the_cluster(tmp_path, authority, caplog):
    later = Authority(tmp_path / "later")
    ca = tmp_path / "ca.crt"
    shutil.copy(authority.ca.cert, ca)
    async with KubeApi(A, tls=served_by(authority)) as api:
        path = kubeconfig(tmp_path, api.url, {"certificate-authority": str(ca)}, {})
        async with watched(settings(api, tmp_path, kubeconfig_file=path)) as it:
            await it.next()
            await api.watched()
            await api.stop()
            api._tls = served_by(later)
            await api.start()
            await it.until(lambda state: state.degraded and "certificate verify failed" in state.degraded)
            replace(ca, authority.ca.cert.read_bytes() + later.ca.cert.read_bytes())
            await follows(api, it)
    assert caplog.text.count("was changed, and is used from now on") == 1


async def test_a_kubeconfig_written_anew(tmp_path):
    async with KubeApi(A) as api:
        api.token = OLD
        path = kubeconfig(tmp_path, api.url, {}, {"token": OLD})
        async with watched(settings(api, tmp_path, kubeconfig_file=path)) as it:
            await it.next()
            await api.watched()
            api.token = NEW
            kubeconfig(tmp_path, api.url, {}, {"token": NEW})
            api.drop_watches()
            await follows(api, it)
