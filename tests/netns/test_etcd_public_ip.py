"""Two hosts that have one public IP by mistake, as clones of one machine or behind one NAT."""

import json

from running import Log, becomes
from test_etcd import DUAL, FOLLOWED_S, PREFIX, _able_to_run_etcd, scenery  # noqa: F401  (a fixture)

from bench.lab.daemon import READY_S

SHARED = "198.51.100.1"
WORDS = "registry: another host has our public IP since 20"


def up(scene, host):
    """Its daemon's log, as soon as packets flow; something may be wrong already."""
    host.namespace.ip(f"address add 2001:db8::{host.number}/64 dev eth0 nodad")
    scene.overlay.launch(host, f"--public-ip={SHARED}", f"--public-ipv6=2001:db8::{host.number}")
    log = Log(scene.overlay.process(host), whole=True)
    log.shows("ready: subnet", READY_S)
    return log


def test_two_hosts_with_one_public_ip_say_so_and_write_seldom():
    """Both announce devices of their own at one key: 300 times a second, if nobody gives way."""
    with scenery(ipv6=True) as scene:
        scene.config = DUAL | {"Backend": {"Type": "vxlan"}}
        scene.configure()
        a, b = scene.lab.hosts
        (scene.overlay.run_directory(b) / "subnet.env").unlink()
        logs = [up(scene, host) for host in (a, b)]
        for host in (a, b):
            assert "--public-ip)" in becomes(scene.overlay, host, "degraded", FOLLOWED_S, WORDS)
        [name] = scene.keys()
        [kv] = json.loads(scene.etcd.ctl("get", "-w", "json", f"{PREFIX}/subnets/{name}"))["kvs"]
        assert kv["version"] < 50
        for log in logs:
            assert len(log.lines("another host has our public IP")) == 1
