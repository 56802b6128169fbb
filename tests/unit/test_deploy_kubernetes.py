"""deploy/kubernetes: objects of Kubernetes' own shape that fit together, and no right that is not needed.

The schema is that of lightkube's models, made from Kubernetes' OpenAPI document: they come with a library that the
daemon needs anyway, where a package of JSON schemas weighs 108 MB. Decoding checks the types; encoding again shows
fields that Kubernetes does not know, for they are lost.
"""

import copy
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
import yaml
from lightkube.models import apps_v1, core_v1, rbac_v1

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
BASE = FOLDER / "base"
PLAIN = FOLDER / "udp-backend.yaml"
MODELS = {"v1": core_v1, "apps/v1": apps_v1, "rbac.authorization.k8s.io/v1": rbac_v1}


class Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML's readers otherwise take the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice: {keys}, {node.start_mark}"
        return super().construct_mapping(node, deep=deep)


def load(text):
    return [it for it in yaml.load_all(text, Strict) if it is not None]


def named(it):
    return f"{it['kind']}/{it['metadata']['name']}"


OBJECTS = load(PLAIN.read_text())
BY_KIND = {it["kind"]: it for it in OBJECTS}
DATA = BY_KIND["ConfigMap"]["data"]
POD = BY_KIND["DaemonSet"]["spec"]["template"]["spec"]
[INIT] = POD["initContainers"]
[DAEMON] = POD["containers"]
CONTAINERS = {it["name"]: it for it in (INIT, DAEMON)}
VOLUMES = {it["name"]: it for it in POD["volumes"]}


def check_schema(it):
    model = getattr(MODELS[it["apiVersion"]], it["kind"])
    assert msgspec.to_builtins(msgspec.convert(it, model)) == it


# ---- the files


def test_the_plain_file_is_the_base_joined(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "made")
    (tmp_path / "made" / PLAIN.name).unlink()
    subprocess.run(["sh", tmp_path / "made" / "join.sh"], check=True)
    assert (tmp_path / "made" / PLAIN.name).read_text() == PLAIN.read_text(), "run deploy/kubernetes/join.sh"


def test_the_base_is_its_files_and_nothing_is_done_to_them():
    [kustomization] = load((BASE / "kustomization.yaml").read_text())
    assert set(kustomization) == {"apiVersion", "kind", "resources"}
    assert {"kustomization.yaml", *kustomization["resources"]} == {it.name for it in BASE.iterdir()}
    assert [named(it) for name in kustomization["resources"] for it in load((BASE / name).read_text())] == [
        named(it) for it in OBJECTS
    ]


def appended(container, path, value):
    """What `op: add` at the end of a list does (RFC 6902)."""
    *keys, last = path.removeprefix("/spec/template/spec/containers/0/").split("/")
    assert last == "-"
    for key in keys:
        container = container[key]
    container.append(value)


def test_iptables_legacy_adds_a_capability_and_the_older_programs():
    [component] = load((FOLDER / "iptables-legacy" / "kustomization.yaml").read_text())
    [patch] = component["patches"]
    assert patch["target"] == {"kind": "DaemonSet", "name": BY_KIND["DaemonSet"]["metadata"]["name"]}
    patched, expected = copy.deepcopy(DAEMON), copy.deepcopy(DAEMON)
    for step in yaml.safe_load(patch["patch"]):
        assert step["op"] == "add"
        appended(patched, step["path"], step["value"])
    expected["securityContext"]["capabilities"]["add"].append("NET_RAW")
    expected["env"].append({"name": "PATH", "value": f"/opt/iptables-legacy:{image_path()}"})
    assert patched == expected


def image_path():
    """PATH in the image."""
    lines = (FOLDER.parent / "Containerfile").read_text().splitlines()
    return next(line.removeprefix("ENV PATH=") for line in lines if line.startswith("ENV PATH="))


# ---- the objects by themselves and together


@pytest.mark.parametrize("it", OBJECTS, ids=named)
def test_an_object_has_kubernetes_shape(it):
    check_schema(it)


@pytest.mark.parametrize(
    ("key", "value"),
    [("privileged", "no"), ("privilegde", False), ("capabilities", {"drop": "ALL"}), ("runAsUser", -0.5)],
)
def test_the_check_of_the_shape_is_strict(key, value):
    broken = copy.deepcopy(BY_KIND["DaemonSet"])
    broken["spec"]["template"]["spec"]["containers"][0]["securityContext"][key] = value
    with pytest.raises((msgspec.ValidationError, AssertionError)):
        check_schema(broken)


def test_the_objects_refer_to_each_other():
    assert list(BY_KIND) == [
        "Namespace",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "DaemonSet",
    ]
    account, binding, spec = (BY_KIND[it] for it in ("ServiceAccount", "ClusterRoleBinding", "DaemonSet"))
    namespace = BY_KIND["Namespace"]["metadata"]["name"]
    assert {it["metadata"]["namespace"] for it in (account, spec, BY_KIND["ConfigMap"])} == {namespace}
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": POD["serviceAccountName"], "namespace": namespace}
    ]
    assert POD["serviceAccountName"] == account["metadata"]["name"]
    assert binding["roleRef"]["name"] == BY_KIND["ClusterRole"]["metadata"]["name"]
    labels = spec["spec"]["template"]["metadata"]["labels"]
    assert spec["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert VOLUMES["config"]["configMap"]["name"] == BY_KIND["ConfigMap"]["metadata"]["name"]
    assert set(VOLUMES) == {it["name"] for container in (INIT, DAEMON) for it in container["volumeMounts"]}


def test_it_runs_on_every_linux_node_and_before_its_network_is_there():
    assert POD["hostNetwork"] is True
    assert POD["tolerations"] == [{"operator": "Exists"}]
    assert POD["priorityClassName"] == "system-node-critical"
    terms = POD["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}]


# ---- rights


@pytest.mark.parametrize("name", CONTAINERS)
def test_no_container_is_privileged(name):
    context = CONTAINERS[name]["securityContext"]
    wanted = {"privileged": False, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    assert {key: context[key] for key in wanted} == wanted
    assert context["capabilities"]["drop"] == ["ALL"]
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_only_the_daemon_has_a_capability():
    assert "add" not in INIT["securityContext"]["capabilities"]
    assert DAEMON["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "SYS_NICE"]


def test_a_rollout_starts_the_new_daemon_beside_the_old_one_and_lets_it_take_over():
    update = BY_KIND["DaemonSet"]["spec"]["updateStrategy"]
    assert update == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    [daemon] = POD["containers"]
    assert "--replace" in daemon["args"], "or a rollout that changes a setting would never end"


def test_nothing_asks_for_all_rights():
    for path in FOLDER.rglob("*.yaml"):
        assert "privileged: true" not in path.read_text()
