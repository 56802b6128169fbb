"""The flags and variables of the Kubernetes registry, given to the real program beside each other."""

import json

import pytest
import yaml
from kube_api import KubeApi, node
from kube_cluster import PORT, Served

from bench.lab.daemon import program
from bench.lab.topology import NETWORK, Lab
from bench.lab.wait import until

READY_S = 20.0
TOKEN = "secret"  # noqa: S105 nobody else has one
PEER = {"kube-subnet-manager": "true", "backend-type": "", "backend-data": "null", "public-ip": "192.168.77.2"}

pytestmark = pytest.mark.usefixtures("able")


@pytest.fixture
def lab():
    with Lab() as made:
        yield made


def kubeconfig(directory, url):
    """With a token in a file beside it; the URL is to be overruled."""
    (directory / "token").write_text(TOKEN)
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
    api.token = TOKEN
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
