"""The programs with no more than the manifest gives their containers: its flags, its capabilities, its mounts.

A container's file system is played by this machine's, on which nothing can be written but what is mounted writable;
/proc/sys and /sys are read-only as container runtimes make them. What a seccomp profile forbids is not played.
"""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from kube_cluster import TOLD_S, UDP, cluster
from refusal import with_mounts

from bench.lab import traffic
from bench.lab.daemon import program
from bench.lab.topology import Lab
from bench.lab.wait import until

MANIFEST = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes" / "base" / "daemonset.yaml"
POD = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]
[INIT], [DAEMON] = POD["initContainers"], POD["containers"]

READ_ONLY = """
for it in %s; do mount --bind "$it" "$it"; done
mount --bind /proc/sys /proc/sys
awk '{print $5}' /proc/self/mountinfo | while read -r it; do
    case "$it" in /proc | /dev | /dev/* | /proc/*/* | /run/netns/*) continue ;; esac
    case " %s " in *" $it "*) continue ;; esac
    mount -o remount,bind,ro "$it" || ! mountpoint -q "$it"  # another test's may be gone by now
done
if [ -w /etc ] || [ -w /proc/sys/net/ipv4/ip_forward ]; then exit 9; fi
""".strip()
"""Words for the directories that stay writable, twice; then proof that nothing else is."""

pytestmark = pytest.mark.usefixtures("able")


def confined(container, *writable):
    """What to put before a command that is to run like a container of the manifest."""
    capabilities = container["securityContext"]["capabilities"]
    assert capabilities["drop"] == ["ALL"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    held = ",".join(["-all", *(f"+{it.lower()}" for it in capabilities.get("add", ()))])
    words = shlex.join(map(str, writable))
    rights = ("setpriv", f"--bounding-set={held}", f"--inh-caps={held}", "--no-new-privs", "--")
    return (*with_mounts(READ_ONLY % (words, words)), *rights)


def of_manifest(directory):
    """Before a daemon whose run directory is this one: it stands for /run/flannel."""
    return confined(DAEMON, directory)


@pytest.mark.parametrize("nftables", [False, True], ids=["iptables", "nftables"])
@pytest.mark.parametrize("backend", [UDP, {"Type": "vxlan"}, {"Type": "host-gw"}], ids=lambda it: it["Type"])
def test_the_daemon(backend, nftables):
    with cluster(backend, confine=of_manifest, arguments=DAEMON["args"], EnableNFTables=nftables) as (overlay, served):
        a, b = overlay.lab.hosts
        for _ in range(2):
            found = traffic.ping(a.pod, b.pod_address)
            assert found.received == found.sent
            overlay.stop(b)
            overlay.launch(b)
            overlay.await_ready(b)
        capabilities = Path(f"/proc/{overlay.process(b).pid}/status").read_text()
        assert f"CapEff:\t{1 << 12 | 1 << 23:016x}\n" in capabilities, "NET_ADMIN and SYS_NICE alone"
        rules = b.namespace.run("nft", "list", "ruleset") if nftables else b.namespace.run("iptables-save")
        assert "masquerade" in rules.lower()
        until(lambda: served.api.nodes["b"]["status"].get("conditions"), TOLD_S, "no condition")


FORBIDDEN = {
    "write where nothing is mounted": "touch /etc/udpb-test",
    "another file system": "mount -t tmpfs none /mnt",
    "a device of its own": "mknod %s/sda b 8 0",
    "another user": "setpriv --reuid=65534 --regid=65534 --clear-groups true",
    "another root": "chroot / true",
    "another's memory": "cat /proc/1/environ",
    "the kernel's switches": "echo 1 >/proc/sys/net/ipv4/ip_forward",
    "a file of somebody else": "chown 65534 %s",
    "a raw socket": "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'",
    "a namespace": "unshare --net true",
}


@pytest.mark.parametrize("what", FORBIDDEN)
@pytest.mark.parametrize("container", [DAEMON, INIT], ids=["daemon", "install-cni"])
def test_what_it_forbids_cannot_be_done(tmp_path, container, what):
    """Tried with the very words that the other tests put before the programs; without them root may do all of it."""
    script = FORBIDDEN[what].replace("%s", str(tmp_path))
    done = subprocess.run(
        [*confined(container, tmp_path), "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0, done
    assert any(it in done.stderr.lower() for it in ("permitted", "denied", "read-only", "superuser")), done.stderr


def test_what_it_grants_can_be_done(tmp_path):
    words = [*confined(DAEMON, tmp_path), "sh", "-c", f"touch {tmp_path}/x && ip link add udpb0 type bridge"]
    with Lab() as lab:
        lab.hosts[0].namespace.run(*words)


def test_install_cni(tmp_path):
    """Once where nothing is, and once over what stands there."""
    folders = {name: tmp_path / name for name in ("bin", "net.d", "conf")}
    for folder in folders.values():
        folder.mkdir()
    source = folders["conf"] / "cni-conf.json"
    source.write_text(json.dumps({"name": "cbr0", "cniVersion": "1.0.0", "plugins": [{"type": "flannel"}]}))
    flags = (f"--cni-bin-dir={folders['bin']}", f"--cni-conf-dir={folders['net.d']}", f"--conf-file={source}")
    before = confined(INIT, folders["bin"], folders["net.d"])
    with Lab() as lab:
        for _ in range(2):
            lab.hosts[0].namespace.run(*before, program(), *INIT["args"], *flags)
            assert sorted(it.name for name in ("bin", "net.d") for it in folders[name].iterdir()) == [
                "10-flannel.conflist",
                "flannel",
            ]
