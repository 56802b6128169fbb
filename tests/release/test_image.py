"""The container image: unpacked from its archive, it carries packages from its own root, as the manifest starts it."""

import json
import subprocess
from pathlib import Path

import yaml
from conftest import ROOT

from bench.lab.daemon import Overlay
from bench.lab.topology import Lab
from bench.lab.wait import until
from udpbackend import __version__

START_S = 60.0
SIZE_MAX = 120 * 2**20
"""Of the archive, in bytes: what a node has to fetch."""


def unpacked(image, to):
    """The image's root and its configuration."""
    layout = to / "layout"
    layout.mkdir()
    subprocess.run(["tar", "--extract", f"--file={image}", "-C", layout], check=True)
    [manifest] = json.loads((layout / "index.json").read_text())["manifests"]
    blob = lambda digest: layout / "blobs" / digest.replace(":", "/")  # noqa: E731 one expression, used twice
    config = json.loads(blob(json.loads(blob(manifest["digest"]).read_text())["config"]["digest"]).read_text())
    name = f"{layout}:{manifest['annotations']['org.opencontainers.image.ref.name']}"
    subprocess.run(["umoci", "unpack", "--image", name, to / "bundle"], check=True, capture_output=True)
    return to / "bundle/rootfs", config["config"]


def container():
    """The daemon's container in the manifest."""
    documents = yaml.safe_load_all((ROOT / "deploy/kubernetes/udp-backend.yaml").read_text())
    [daemons] = [it for it in documents if it and it["kind"] == "DaemonSet"]
    return daemons["spec"]["template"]["spec"]["containers"][0]


def test_it_runs_from_its_own_root_with_the_manifests_rights(image, tmp_path):
    assert image.stat().st_size < SIZE_MAX
    root, config = unpacked(image, tmp_path)
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Entrypoint"] == ["udp-backend"]
    assert not any(it.startswith("PIP_") for it in config["Env"])

    capabilities = ",".join(f"+{it.lower()}" for it in container()["securityContext"]["capabilities"]["add"])
    confined = ["setpriv", "--no-new-privs", f"--inh-caps=-all,{capabilities}", f"--bounding-set=-all,{capabilities}"]
    inside = ["unshare", "--mount", "--pid", "--fork", f"--root={root}", "--mount-proc", "env", "-i", *config["Env"]]
    with Lab(2) as lab, Overlay(lab) as overlay:
        a, b = lab.hosts
        for name in ("dev/net", "run/flannel"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "run/nodes.json").write_text(overlay.registry.read_text())
        Path(root, "dev/net/tun").unlink(missing_ok=True)
        subprocess.run(["mknod", root / "dev/net/tun", "c", "10", "200"], check=True)
        daemon = a.namespace.start(
            *inside, *confined, *config["Entrypoint"], "--static-subnets=/run/nodes.json", "--iface=eth0", name="image"
        )
        overlay.launch(b)
        overlay.await_ready(b)

        def ready():
            assert daemon.returncode is None, daemon.tail()
            return json.loads(a.namespace.run(*inside, "udp-backend", "status", "-o", "json", check=False) or "{}")

        until(lambda: ready().get("verdict", {}).get("state") == "ready", START_S, "the image's daemon is not ready")
        a.pod.run("ping", "-c", "3", "-i", "0.2", "-W", "5", b.pod_address)
        assert overlay.carried(b).rx_packets >= 3
        overlay.stop_all()
        daemon.stop()


def test_the_plugin_and_the_programs_for_rules_are_in_it(image, tmp_path):
    root, _ = unpacked(image, tmp_path)

    def run(*words):
        return subprocess.run(["chroot", root, *words], check=True, capture_output=True, text=True).stdout

    assert run("/opt/udp-backend/bin/udp-backend", "install-cni", "--cni-bin-dir=/b", "--cni-conf-dir=/c") is not None
    assert (root / "b/flannel").exists()
    assert "nf_tables" in run("/usr/sbin/iptables", "--version")
    assert "legacy" in run("/opt/iptables-legacy/iptables", "--version")
    assert run("/usr/sbin/nft", "--version")
