"""The daemon as another user than root, with CAP_NET_ADMIN alone: what the unit and the manifest leave it, and less."""

import os
import re
import stat
from pathlib import Path

import pytest
from firewall_facts import require
from refusal import with_mounts

from bench.lab import traffic
from bench.lab.daemon import Overlay
from bench.lab.topology import Lab

CHECKOUT = Path(__file__).resolve().parents[2]
NOBODY = 65534
RIGHTS = (
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all,+net_admin",
    "--ambient-caps=-all,+net_admin", "--bounding-set=-all,+net_admin", "--no-new-privs", "--",
)  # fmt: skip
NET_ADMIN = 1 << 12


def in_reach(spare):
    """Mounts that let everybody reach this checkout, though it may lie where only root can go (`mktemp -d`).

    What is closed is covered, and the checkout put back on top; `spare` is a directory that holds it meanwhile.
    """
    closed = [it for it in CHECKOUT.parents if not it.stat().st_mode & stat.S_IXOTH]
    if not closed:
        return ":"
    spare.mkdir(exist_ok=True)
    cover = f"mount -t tmpfs -o mode=755 tmpfs {closed[-1]}"
    return f"mount --bind {CHECKOUT} {spare} && {cover} && mkdir -p {CHECKOUT} && mount --bind {spare} {CHECKOUT}"


class Unprivileged(Overlay):
    """Daemons of nobody: only their run directories are theirs, and a TUN device that everybody may open."""

    def launch(self, host, *arguments):
        directory, tun = self.run_directory(host), self.lab.directory / "tun"
        directory.mkdir(exist_ok=True)
        os.chown(directory, NOBODY, NOBODY)
        if not tun.exists():
            os.mknod(tun, stat.S_IFCHR, os.makedev(10, 200))
            tun.chmod(0o666)
        reach = in_reach(self.lab.directory / "checkout")
        before = [*with_mounts(f"mount --bind {tun} /dev/net/tun; {reach}"), *RIGHTS]
        start = host.namespace.start
        host.namespace.start = lambda *command, name: start(*before, *command, name=name)
        try:
            return super().launch(host, *arguments)
        finally:
            del host.namespace.start


def rights(pid):
    """User, effective capabilities and whether new ones can be had, of every thread."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        text = (task / "status").read_text()
        found = [re.search(rf"^{field}:\s*(\w+)", text, re.MULTILINE)[1] for field in ("Uid", "CapEff", "NoNewPrivs")]
        yield int(found[0]), int(found[1], 16), int(found[2])


@pytest.mark.parametrize("backend", [{}, {"Type": "vxlan"}, {"Type": "host-gw"}], ids=lambda it: it.get("Type", "udp"))
def test_another_user_needs_no_more_than_net_admin(able, backend):
    require("iptables")
    with Lab(2) as lab:
        lab.directory.chmod(0o755)
        with Unprivileged(lab, "--ip-masq", "--ip-blackhole-route", backend=backend) as overlay:
            overlay.start_all()
            a, b = lab.hosts
            assert traffic.ping(a.pod, b.pod_address, count=5).received == 5
            for host in lab.hosts:
                assert set(rights(overlay.process(host).pid)) == {(NOBODY, NET_ADMIN, 1)}
                assert "FLANNEL-POSTRTG" in host.namespace.run("iptables-save")
            overlay.stop(a)
            overlay.launch(a)
            overlay.await_ready(a)
            assert traffic.ping(b.pod, a.pod_address, count=5).received == 5
            overlay.stop_all()
