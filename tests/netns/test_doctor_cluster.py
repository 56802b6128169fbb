"""`doctor` on a node of Kubernetes: two daemons, an API server over HTTP, and faults in all that it answers for.

The API server is that of the tests; daemons, doctor and what install-cni puts there are ours.
"""

import json
import os

import pytest
from doctored_cluster import READY, Cluster, cluster, ready
from kube_api import joined

from bench.lab.topology import Lab
from bench.lab.wait import until

NOT_READY = "container runtime network not ready: cni plugin not initialized"

pytestmark = pytest.mark.usefixtures("able")


@pytest.fixture(scope="module")
def healthy(able):
    """A cluster for tests that mend what they break."""
    with cluster() as made:
        yield made


@pytest.fixture(autouse=True)
def _as_before(request):
    """Whatever a test has done to the shared cluster, in the end it is healthy again."""
    yield
    if "healthy" in request.fixturenames:
        request.getfixturevalue("healthy").examine().nothing()


def test_a_healthy_node_and_everything_checked(healthy):
    found = healthy.examine()
    found.nothing()
    assert found.not_checked == {}


def test_a_node_that_is_not_ready(healthy):
    healthy.say("a", type="Ready", status="False", reason="KubeletNotReady", message=NOT_READY)
    finding = healthy.examine().only("node-ready")
    assert finding["evidence"] == f"Ready is False: KubeletNotReady: {NOT_READY}"
    assert "CNI configuration" in finding["cure"]
    healthy.say("a", **READY)


def test_a_network_that_counts_as_unavailable(healthy):
    healthy.say("a", type="NetworkUnavailable", status="True", reason="NoRouteCreated", message="Node created")
    finding = healthy.examine().only("node-ready")
    assert finding["evidence"] == "NetworkUnavailable is True: NoRouteCreated: Node created"
    assert "--set-node-network-unavailable=false" in finding["cure"]
    healthy.say("a", type="NetworkUnavailable", status="False", reason="FlannelIsUp", message="")


def test_a_clock_that_is_wrong(healthy):
    healthy.order("clock 3600")
    finding = healthy.examine().only("clock")
    assert finding["what"] == "the clock of this host is wrong, or that of the registry"
    assert finding["evidence"].endswith(f" s behind that of {healthy.url}")
    assert abs(int(finding["evidence"].split()[2]) - 3600) <= 3
    healthy.order()


@pytest.mark.parametrize("right", ["patch nodes/status", "list nodes", "watch nodes", "get nodes"])
def test_a_right_that_is_taken_away(healthy, right):
    healthy.order(f"forbid {right}")
    finding = healthy.examine().findings["kube-rights"]
    assert finding["severity"] == "down"
    assert finding["evidence"] == f"{healthy.url} says that it may not {right}"
    assert "nodes/status: patch" in finding["cure"]
    healthy.order()
    until(lambda: healthy.examine().document["daemon"] == "ready", 20, "the daemon has the right again")


def examined_after_the_end(made, last_words):
    """What the doctor finds where the daemon has ended by itself, and said why."""
    daemon = made.launch(made.a, "--iface=eth0")
    assert daemon.wait(20) == 1
    assert last_words in daemon.tail()
    made.install_cni()
    return made.examine()


def test_a_daemon_that_may_not_write_its_node():
    """It ends and says why; the doctor says the same without it."""
    with Lab() as lab:
        made = Cluster(lab)
        made.serve(*(ready(host.name, host.subnet) for host in lab.hosts))
        made.order("forbid patch nodes/status")
        found = examined_after_the_end(made, "forbids to patch nodes/status")
    assert set(found.findings) == {"daemon", "kube-rights", "subnet-file"}
    assert found.findings["kube-rights"]["evidence"] == f"{made.url} says that it may not patch nodes/status"


def test_a_configuration_of_cni_that_is_empty_dangling_or_gone(healthy):
    ours = healthy.conf / "10-flannel.conflist"
    text = ours.read_text()
    ours.write_text("")
    assert healthy.examine().only("cni-config")["evidence"] == f"{ours}: it is empty"
    ours.unlink()
    ours.symlink_to("gone")
    assert healthy.examine().only("cni-config")["evidence"] == f"{ours}: a link that leads nowhere, to gone"
    ours.unlink()
    assert healthy.examine().only("cni-config")["evidence"].startswith(f"{healthy.conf} holds no file that ends in ")
    healthy.conf.rmdir()
    finding = healthy.examine().only("cni-config")
    assert finding["what"] == "there is no CNI configuration: no pod can start, and the node stays NotReady"
    assert finding["evidence"] == f"{healthy.conf}: No such file or directory"
    healthy.conf.mkdir()
    ours.write_text(text)


def test_a_configuration_of_another_network_that_comes_first(healthy):
    other = healthy.conf / "05-other.conf"
    other.write_text(json.dumps({"name": "n", "cniVersion": "1.0.0", "type": "bridge"}))
    finding = healthy.examine().only("cni-config")
    assert finding["what"] == "the container runtime attaches pods to another network than the overlay"
    assert finding["evidence"] == f"it takes {other} (bridge); 10-flannel.conflist with the overlay's comes after it"
    other.write_text("{")
    finding = healthy.examine().only("cni-config")
    assert finding["what"] == "a CNI configuration cannot be used"
    other.unlink()


@pytest.mark.parametrize(
    ("damage", "evidence"),
    [
        (lambda path: path.unlink(), "flannel is not there"),
        (lambda path: path.write_bytes(b""), "flannel is no program that can be run"),
        (lambda path: path.chmod(0o644), "flannel is no program that can be run"),
        (lambda path: (path.unlink(), path.symlink_to("gone")), "flannel is a link that leads nowhere, to gone"),
    ],
    ids=["gone", "empty", "mode", "dangling"],
)
def test_a_plugin_that_is_missing(healthy, damage, evidence):
    path = healthy.file("bin") / "flannel"
    program_of_ours = path.read_bytes()
    damage(path)
    finding = healthy.examine().only("cni-config")
    assert finding["what"] == "a program that the CNI configuration names is missing: no pod can start"
    assert finding["evidence"].endswith(evidence)
    path.unlink(missing_ok=True)
    path.write_bytes(program_of_ours)
    path.chmod(0o755)


def test_a_plugin_that_reads_another_subnet_file(healthy):
    ours = healthy.conf / "10-flannel.conflist"
    text = ours.read_text()
    ours.write_text(text.replace("subnet.env", "other.env"))
    finding = healthy.examine().only("cni-config")
    assert finding["what"] == "the CNI plugin reads another subnet file than the daemon writes"
    assert finding["evidence"].startswith(f"{ours} says {healthy.file('a')}/other.env, the daemon has ")
    ours.write_text(text)


def test_a_pipe_in_the_place_of_a_configuration_holds_up_nothing(healthy):
    pipe = healthy.conf / "01-pipe.conf"
    os.mkfifo(pipe)
    finding = healthy.examine().only("cni-config")
    assert finding["evidence"] == f"{pipe}: it is not a file"
    pipe.unlink()


def test_nodes_that_claim_what_is_anothers():
    with cluster(
        joined("c", "10.5.2.0/24", "192.168.77.2", created="2026-02-01T00:00:00Z"),
        joined("d", "10.5.9.0/24", "192.168.77.1", created="2026-02-01T00:00:00Z"),
    ) as made:
        found = made.examine()
    found.only("duplicates")
    ours, addresses, subnets = found.document["findings"]
    assert ours["evidence"].startswith("192.168.77.1 is that of a with 10.5.1.0/24 and d with 10.5.9.0/24; besides ")
    assert addresses["evidence"] == "192.168.77.2 is that of b with 10.5.2.0/24 and c with 10.5.2.0/24"
    assert subnets["evidence"] == "10.5.2.0/24 of b and 10.5.2.0/24 of c"


def test_the_nat_interface_that_all_nodes_have():
    """The default route leads by an interface with the same address everywhere, as in many a virtual machine."""

    def nat(host):
        host.namespace.ip(
            "link add nat0 type bridge", "link set nat0 up", "address add 10.0.2.15/24 dev nat0",
            "route add default via 10.0.2.2 dev nat0",
        )  # fmt: skip

    with cluster(prepare=nat, flags=()) as made:
        found = made.examine()
    finding = found.only("duplicates")
    assert finding["severity"] == "down"
    assert finding["what"] == "this node is known by 10.0.2.15, and so are others: nat0 is most likely a NAT interface"
    assert finding["evidence"] == (
        "10.0.2.15 is that of a with 10.5.1.0/24 and b with 10.5.2.0/24; besides nat0 this host has eth0 [192.168.77.1]"
    )
    assert "--iface" in finding["cure"]
    assert found.not_checked["reach"] == "the daemon knows no other node"


def test_a_node_of_another_backend():
    with cluster(joined("c", "10.5.9.0/24", "192.168.77.9", backend_type="vxlan")) as made:
        finding = made.examine().only("other-backend")
    assert finding["what"] == "1 node of another backend cannot be reached from here"
    assert finding["evidence"] == "this node has udp; c has vxlan (10.5.9.0/24)"


def test_a_node_without_a_podcidr():
    with Lab() as lab:
        made = Cluster(lab)
        made.serve(ready("a"))
        daemon = made.launch(made.a, "--iface=eth0")
        until(lambda: "pod cidr not assigned: waiting for it" in daemon.tail(), 20, "the daemon says what it lacks")
        made.install_cni()
        found = made.examine()
    assert found.findings["daemon"]["evidence"] == 'waiting for a lease; registry: node "a" pod cidr not assigned'
    assert set(found.findings) == {"daemon", "node-ready", "subnet-file"}
    assert found.findings["node-ready"]["what"] == "the node a has no podCIDR, so the daemon gets no subnet"
    assert "--allocate-node-cidrs" in found.findings["node-ready"]["cure"]


def test_a_daemon_that_waits_for_an_api_server_that_is_not_there():
    with Lab() as lab:
        made = Cluster(lab)
        daemon = made.launch(made.a, "--iface=eth0")
        until((made.file("a") / "subnet.sock").exists, 20, f"the daemon answers\n{daemon.tail()}")
        made.install_cni()
        found = made.examine()
    finding = found.only("daemon", "kube-rights", "subnet-file")
    assert finding["what"] == "the daemon is not ready"
    assert finding["evidence"].startswith("waiting for the network's configuration")
    assert found.findings["kube-rights"]["evidence"].startswith(f"no contact with the API server {made.url}")
    assert found.document["daemon"] == "starting"
