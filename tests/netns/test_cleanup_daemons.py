"""`udp-backend cleanup` after real daemons of each backend: killed, the host is as before; running, refused."""

import json
import subprocess
from contextlib import contextmanager

import leavings
import pytest
from etcd_server import PROGRAMS, Etcd
from firewall_facts import OTHERS, require
from kernel_overlay import kernel_overlay
from test_etcd import CONFIG, PREFIX, subnet_env

from bench.lab.daemon import Overlay, program
from bench.lab.topology import Lab

RULES = ("--ip-masq", "--ip-blackhole-route")


@pytest.fixture(autouse=True)
def _programs(able):
    require("iptables", "ip6tables", "nft")


def cleanup(overlay, host, *flags):
    """Exit status and what it prints, errors last."""
    words = [program(), "cleanup", f"--subnet-file={overlay.run_directory(host) / 'subnet.env'}", *flags]
    done = subprocess.run(host.namespace.argv(words), capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def kill(overlay, host):
    """As a crash would; the daemon no longer counts as one that is to be judged."""
    process = overlay._running.pop(host.name)
    process.send(9)
    process.wait(5)


@pytest.mark.parametrize(
    ("backend", "left"),
    [
        ({"Type": "udp"}, "removed device flannel0\n"),
        ({"Type": "vxlan"}, "removed device flannel.1\n"),
        ({"Type": "host-gw"}, "removed route 10.5.2.0/24 via 192.168.77.2\n"),
    ],
    ids=["udp", "vxlan", "host-gw"],
)
def test_a_killed_daemon(backend, left):
    with kernel_overlay(backend, pod_mtu=1400, start=False) as overlay:
        host = overlay.lab.hosts[0]
        folder, enter = overlay.run_directory(host), host.namespace.argv(())
        folder.mkdir()
        host.namespace.run("iptables-restore", text=OTHERS)
        before = leavings.state(folder, enter)
        overlay.launch(host, *RULES)
        overlay.await_ready(host)
        status, said = cleanup(overlay, host)
        assert (status, "a daemon is running" in said) == (1, True)
        overlay.await_ready(host)
        kill(overlay, host)
        crashed = leavings.state(folder, enter)
        assert cleanup(overlay, host, "--dry-run")[0] == 0
        assert leavings.state(folder, enter) == crashed
        status, said = cleanup(overlay, host)
        assert status == 0, said
        for words in (left, "route blackhole 10.5.1.0/24", "chain FLANNEL-POSTRTG", "chain FLANNEL-FWD"):
            assert words in said
        assert leavings.state(folder, enter) == before
        assert cleanup(overlay, host) == (0, "nothing to clean up\n")


@pytest.mark.parametrize(
    "backend", [{"Type": "udp"}, {"Type": "vxlan"}, {"Type": "host-gw"}], ids=lambda it: it["Type"]
)
def test_a_signal_takes_all_away_if_that_is_asked_for(backend):
    with kernel_overlay(backend, pod_mtu=1400, start=False) as overlay:
        host = overlay.lab.hosts[0]
        folder, enter = overlay.run_directory(host), host.namespace.argv(())
        folder.mkdir()
        host.namespace.run("iptables-restore", text=OTHERS)
        before = leavings.state(folder, enter)
        process = overlay.launch(host, *RULES)
        overlay.await_ready(host)
        overlay.stop(host)
        assert leavings.state(folder, enter) != before, "an ordinary end leaves it to the next start"
        process = overlay.launch(host, *RULES, "--cleanup-on-exit")
        overlay.await_ready(host)
        overlay.stop(host)
        assert leavings.state(folder, enter) == before
        assert "the overlay is taken away: device, routes, rules and " in process.stderr.read_text()


def links(host):
    return {it["ifname"] for it in json.loads(host.namespace.run("ip", "-j", "link"))}


def flanneld_comes(host):
    """What its udp backend does first: a TUN by the next free name, and the network's route; the name, the refusal."""
    before = links(host)
    host.namespace.ip("tuntap add dev flannel%d mode tun")
    (name,) = links(host) - before
    host.namespace.ip(f"link set {name} up")
    words = host.namespace.argv(["ip", "route", "add", "10.5.0.0/16", "dev", name])
    return name, subprocess.run(words, capture_output=True, text=True, check=False).stderr


def test_back_to_flannel():
    """Our device outlives us, and flanneld has no use for it: the network's route is taken until it is cleaned up."""
    with kernel_overlay({"Type": "udp"}, pod_mtu=1400, start=False) as overlay:
        host = overlay.lab.hosts[0]
        overlay.launch(host)
        overlay.await_ready(host)
        overlay.stop(host)
        name, refusal = flanneld_comes(host)
        assert (name, "File exists" in refusal) == ("flannel1", True)
        host.namespace.ip("link delete flannel1")
        assert cleanup(overlay, host)[0] == 0
        assert flanneld_comes(host) == ("flannel0", "")


@contextmanager
def leased():
    """Host a with two leases in etcd, one of them its daemon's, which is gone."""
    require(*PROGRAMS)
    with Lab() as lab:
        host = lab.hosts[0]
        enter = host.namespace.argv(())
        with (
            Etcd(address=host.address, ports=(2379, 2380), enter=enter) as etcd,
            Overlay(lab, "--static-subnets=", f"--etcd-endpoints={etcd.endpoints[0]}") as overlay,
        ):
            etcd.ctl("put", f"{PREFIX}/config", json.dumps(CONFIG))
            overlay.run_directory(host).mkdir()
            (overlay.run_directory(host) / "subnet.env").write_text(subnet_env(host, ipv6=False))
            overlay.launch(host)
            overlay.await_ready(host)
            kill(overlay, host)
            lease = etcd.ctl("lease", "grant", "3600").split()[1]  # of an earlier run, or another daemon's of this host
            value = f'{{"PublicIP":"{host.address}"}}'
            etcd.ctl("put", f"--lease={lease}", f"{PREFIX}/subnets/10.5.9.0-24", value)
            yield overlay, host, etcd


def keys(etcd):
    return [line.rpartition("/")[2] for line in etcd.ctl("get", "--prefix", "--keys-only", PREFIX).split()]


def test_a_lease_is_removed_only_if_it_is_asked_for():
    with leased() as (overlay, host, etcd):
        where = f"--etcd-endpoints={etcd.endpoints[0]}"
        all_keys = ["config", "10.5.1.0-24", "10.5.9.0-24"]
        status, said = cleanup(overlay, host, "--dry-run", where)
        assert (status, f"lease {PREFIX}/subnets/10.5.1.0-24" in said) == (0, True), said
        assert sorted(keys(etcd)) == sorted(all_keys)
        env = (overlay.run_directory(host) / "subnet.env").read_text()
        status, said = cleanup(overlay, host)
        assert (status, "lease" in said) == (0, False), said
        assert sorted(keys(etcd)) == sorted(all_keys)
        (overlay.run_directory(host) / "subnet.env").write_text(env)
        status, said = cleanup(overlay, host, where)
        assert (status, f"removed lease {PREFIX}/subnets/10.5.1.0-24\n" in said) == (0, True), said
        assert sorted(keys(etcd)) == ["10.5.9.0-24", "config"]
        assert cleanup(overlay, host, where) == (0, "nothing to clean up\n")


@pytest.mark.parametrize(
    ("public_ip", "why"),
    [
        ("192.168.77.2", "left alone: it may be another node's: this host does not have its PublicIP"),
        ("192.168.77.1", "left alone: it is a reservation, made by an administrator"),
    ],
)
def test_leases_that_are_left(public_ip, why):
    with leased() as (overlay, host, etcd):
        etcd.ctl("put", f"{PREFIX}/subnets/10.5.1.0-24", f'{{"PublicIP":"{public_ip}"}}')
        status, said = cleanup(overlay, host, f"--etcd-endpoints={etcd.endpoints[0]}")
        assert (status, why in said) == (0, True), said
        assert sorted(keys(etcd)) == ["10.5.1.0-24", "10.5.9.0-24", "config"]


@pytest.mark.parametrize("answer", ["none", "too late"])
def test_without_etcds_answer_the_subnet_file_stays_and_all_else_goes(answer):
    with leased() as (overlay, host, etcd):
        if answer == "none":
            etcd.stop()
        else:
            etcd.silence()
        status, said = cleanup(overlay, host, f"--etcd-endpoints={etcd.endpoints[0]}")
        assert status == 1
        assert f"etcd {etcd.endpoints[0]}: " in said
        assert "removed device flannel0\n" in said
        assert [path.name for path in overlay.run_directory(host).iterdir()] == ["subnet.env"]
