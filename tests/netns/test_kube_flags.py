"""The flags and variables of the Kubernetes registry, given to the real program beside each other."""

import json
import shutil
import ssl
import subprocess

import pytest
import yaml
from doctor_api import ReviewingApi
from etcd_server import Authority
from kube_api import KubeApi, node
from kube_cluster import PORT, TOLD_S, Served
from refusal import with_mounts

from bench.lab.daemon import program
from bench.lab.topology import NETWORK, Lab
from bench.lab.wait import until

READY_S = 20.0
LETS_IN, LATER = "first", "second"
"""Bearer tokens."""
PEER = {"kube-subnet-manager": "true", "backend-type": "", "backend-data": "null", "public-ip": "192.168.77.2"}

pytestmark = pytest.mark.usefixtures("able")


@pytest.fixture
def lab():
    with Lab() as made:
        yield made


def kubeconfig(directory, url):
    """With a token in a file beside it; the URL is to be overruled."""
    (directory / "token").write_text(LETS_IN)
    document = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"tokenFile": "token"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (directory / "kubeconfig").write_text(yaml.safe_dump(document))
    return directory / "kubeconfig"


def said(api):
    return api.nodes["a"]["metadata"].get("annotations", {})


@pytest.mark.parametrize("by", ["flags", "variables"])
def test_all_of_them(lab, by):
    a = lab.host("a")
    (lab.directory / "net.json").write_text(json.dumps({"Network": NETWORK, "Backend": {"Type": "udp"}}))
    given = {
        "kube-subnet-mgr": "true",
        "kube-api-url": f"http://{a.address}:{PORT}",
        "kubeconfig-file": kubeconfig(lab.directory, "http://192.0.2.1:1"),
        "kube-annotation-prefix": "example.org/net",
        "net-config-path": lab.directory / "net.json",
        "set-node-network-unavailable": "false",
        "subnet-file": lab.directory / "run" / "subnet.env",
        "iface": "eth0",
    }
    (lab.directory / "run").mkdir()
    variables = [f"FLANNELD_{name.upper().replace('-', '_')}={value}" for name, value in given.items()]
    flags = [f"--{name}={value}" for name, value in given.items()]
    pod = ["POD_NAME=udp-backend-x", "POD_NAMESPACE=udp-backend"]
    api = KubeApi(node("a", a.subnet), address=a.address, port=PORT)
    api.token = LETS_IN
    api.pods["udp-backend-x"] = {"metadata": {"name": "udp-backend-x"}, "spec": {"nodeName": "a"}}
    words = [program(), *flags] if by == "flags" else [*variables, program()]
    peer = node("b", "10.5.2.0/24", annotations={f"example.org/net-{key}": text for key, text in PEER.items()})
    with Served(a.namespace, api) as served:
        daemon = a.namespace.start("env", *pod, *words, name="daemon")
        until((lab.directory / "run" / "subnet.env").exists, READY_S, f"the daemon is ready\n{daemon.tail()}")
        served.do(api.watched)
        served.do(api.put, peer)
        # By then a condition would long have been written.
        status = (program(), "status", f"--subnet-file={given['subnet-file']}")
        until(lambda: "192.168.77.2" in a.namespace.run(*status, check=False), READY_S, "the peer is not seen")
        assert daemon.stop() == 0
    assert {name: text for name, text in said(api).items() if name.startswith("example.org/net-")} == said(api)
    assert said(api)["example.org/net-public-ip"] == a.address
    assert not api.nodes["a"]["status"].get("conditions")
    assert len(api.of("PATCH")) == 1
    assert api.asked[0].path == "/api/v1/namespaces/udp-backend/pods/udp-backend-x"


def test_nobody_says_which_node_this_is(lab):
    a = lab.host("a")
    (lab.directory / "net.json").write_text(json.dumps({"Network": NETWORK}))
    daemon = a.namespace.start(
        program(), "--kube-subnet-mgr", f"--kube-api-url=http://{a.address}:{PORT}",
        f"--net-config-path={lab.directory}/net.json", f"--subnet-file={lab.directory}/subnet.env", name="daemon",
    )  # fmt: skip
    assert daemon.wait(READY_S) == 1
    assert "env variables POD_NAME and POD_NAMESPACE must be set, or NODE_NAME" in daemon.tail()


@pytest.fixture
def account(lab):
    """What a kubelet puts into a pod, and an API server that believes it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    authority = Authority(lab.directory / "ca")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.server.cert, authority.server.key)
    folder = lab.directory / "account"
    folder.mkdir()
    shutil.copy(authority.ca.cert, folder / "ca.crt")
    (folder / "namespace").write_text("udp-backend")
    (folder / "token").write_text(LETS_IN)
    api = ReviewingApi(node("a", lab.host("a").subnet), address="127.0.0.1", port=PORT, tls=tls)
    api.token = LETS_IN
    return folder, api


def test_in_a_pod(lab, account):
    """No flag says where the API server is: daemon and doctor find it, and go on with another token."""
    folder, api = account
    a, run = lab.host("a"), lab.directory / "run"
    run.mkdir()
    (lab.directory / "net.json").write_text(json.dumps({"Network": NETWORK}))
    place = "/run/secrets/kubernetes.io/serviceaccount"
    pod = (
        *with_mounts(f"mount -t tmpfs tmpfs /run; mkdir -p {place}; mount --bind {folder} {place}"),
        *("env", "KUBERNETES_SERVICE_HOST=127.0.0.1", f"KUBERNETES_SERVICE_PORT={PORT}", "NODE_NAME=a", program()),
    )
    files = (f"--subnet-file={run}/subnet.env", "--iface=eth0", f"--net-config-path={lab.directory}/net.json")
    with Served(a.namespace, api) as served:
        daemon = a.namespace.start(*pod, "--kube-subnet-mgr", *files, name="daemon")
        until((run / "subnet.env").exists, READY_S, f"the daemon is ready\n{daemon.tail()}")
        served.do(api.watched)
        (folder / "token").write_text(LATER)
        api.token = LATER
        served.do(api.drop_watches)
        until(
            lambda: api.of("WATCH")[-1].headers["Authorization"] == f"Bearer {LATER}", TOLD_S, "the new token is used"
        )
        argv = a.namespace.argv([*pod, "doctor", "--json", files[0], f"--cni-conf-dir={lab.directory}/none"])
        document = json.loads(subprocess.run(argv, capture_output=True, text=True, check=False).stdout)
        assert [it["check"] for it in document["findings"]] == ["cni-config"]
        assert {it["check"] for it in document["not_checked"]} == {"reach", "path-mtu"}, "it has no peer"
        assert daemon.stop() == 0
