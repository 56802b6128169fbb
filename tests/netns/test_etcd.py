"""etcd as the registry of real daemons: etcd runs on host a, where every host reaches it over the underlay.

Each host's subnet file names the subnet its pods have already, as after an earlier run.
"""

import http.client
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import packets
import pytest
from etcd_server import Authority, Etcd
from etcd_server import missing as missing_etcd
from probe import probing
from running import Log, becomes

from bench.lab import traffic
from bench.lab.daemon import HEALTHZ_PORT, PORT, Overlay, program
from bench.lab.topology import NETWORK, NETWORK6, Host, Lab
from bench.lab.wait import until

PREFIX = "/coreos.com/network"
FOLLOWED_S = 5.0
"""What a change in etcd may take to be seen everywhere on a busy machine."""
NOTICED_S = 30.0
"""What a daemon may take to find out that etcd is back: its pauses grow to half a minute."""
CONFIG = {"Network": NETWORK, "SubnetLen": 24, "Backend": {"Type": "udp", "Port": PORT}}
DUAL = CONFIG | {"EnableIPv6": True, "IPv6Network": NETWORK6}


@pytest.fixture(scope="module", autouse=True)
def _able_to_run_etcd(able: None) -> None:
    if lacking := missing_etcd():
        pytest.skip(f"needs {lacking}")


@dataclass
class Scene:
    lab: Lab
    etcd: Etcd
    overlay: Overlay
    config: dict[str, Any] = field(default_factory=lambda: CONFIG)

    def configure(self) -> None:
        self.etcd.ctl("put", f"{PREFIX}/config", json.dumps(self.config))

    def start(self, *names: str) -> None:
        """Starts the daemons of these hosts and waits until they are ready."""
        for name in names:
            self.overlay.launch(self.lab.host(name))
        for name in names:
            self.overlay.await_ready(self.lab.host(name))

    def keys(self) -> dict[str, str]:
        """The leases as they stand in etcd, byte for byte."""
        lines = self.etcd.ctl("get", "--prefix", f"{PREFIX}/subnets/").splitlines()
        return {name.rpartition("/")[2]: value for name, value in zip(lines[::2], lines[1::2], strict=True)}

    def knows(self, name: str, *others: str) -> None:
        """Waits until a host's peers are these."""
        wanted = sorted(self.lab.host(other).address for other in others)

        def known() -> bool:
            return [peer["public_ip"] for peer in self.overlay.status(self.lab.host(name))["peers"]] == wanted

        until(known, FOLLOWED_S, f"the peers of {name} are not {wanted}")

    def meet(self, here: str, there: str) -> None:
        """Waits until both hosts have followed: a pod's ping is answered."""
        pod, target = self.lab.host(here).pod, self.lab.host(there).pod_address
        until(lambda: traffic.ping(pod, target, count=1).received, FOLLOWED_S, f"{here} does not reach {there}")

    def reach(self, here: str, there: str) -> None:
        """Fails unless a pod's pings are all answered, as soon as both hosts have followed."""
        self.meet(here, there)
        pod, target = self.lab.host(here).pod, self.lab.host(there).pod_address
        answer = traffic.ping(pod, target, count=5)
        hosts = [host for host in self.overlay.running if host.name in (here, there)]
        assert answer.received == answer.sent == 5, drops(self.overlay, *hosts)


def subnet_env(host: Host, *, ipv6: bool) -> str:
    """As the run before would have left it."""
    text = f"FLANNEL_NETWORK={NETWORK}\nFLANNEL_SUBNET={host.gateway}/24\n"
    return text + (f"FLANNEL_IPV6_NETWORK={NETWORK6}\nFLANNEL_IPV6_SUBNET={host.gateway6}/64\n" if ipv6 else "")


@contextmanager
def scenery(*start: str, hosts: int = 2, ipv6: bool = False) -> Iterator[Scene]:
    with Lab(hosts, ipv6=ipv6) as lab:
        server = lab.hosts[0]
        with (
            Etcd(address=server.address, ports=(2379, 2380), enter=server.namespace.argv(())) as etcd,
            Overlay(lab, "--static-subnets=", f"--etcd-endpoints={etcd.endpoints[0]}") as overlay,
        ):
            scene = Scene(lab, etcd, overlay, DUAL if ipv6 else CONFIG)
            scene.configure()
            for host in lab.hosts:
                overlay.run_directory(host).mkdir()
                (overlay.run_directory(host) / "subnet.env").write_text(subnet_env(host, ipv6=ipv6))
            scene.start(*start)
            # A daemon is ready with the nodes it knew when it started; those that started with it, it knows soon after.
            for here, there in combinations(start, 2):
                scene.meet(here, there)
            yield scene
            overlay.stop_all()


@pytest.fixture
def pair() -> Iterator[Scene]:
    """Two hosts with running daemons."""
    with scenery("a", "b") as scene:
        yield scene


@pytest.fixture
def three() -> Iterator[Scene]:
    """Three hosts; a and b have running daemons."""
    with scenery("a", "b", hosts=3) as scene:
        yield scene


def readyz(host: Host) -> int:
    """The status of /readyz."""

    def request() -> int:
        connection = http.client.HTTPConnection(host.address, HEALTHZ_PORT, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status
        finally:
            connection.close()

    return host.namespace.call(request)


def flannel0(host: Host) -> tuple[list[str], list[str]]:
    """Its addresses and the routes that lead to it; two empty lists where it is gone."""
    links = json.loads(host.namespace.run("ip", "-j", "-4", "address", "show", "dev", "flannel0", check=False) or "[]")
    routes = json.loads(host.namespace.run("ip", "-j", "route", "show"))
    addresses = [f"{it['local']}/{it['prefixlen']}" for link in links for it in link.get("addr_info", [])]
    return addresses, [it["dst"] for it in routes if it.get("dev") == "flannel0"]


def test_two_hosts_and_a_third(three):
    three.reach("a", "b")
    three.reach("b", "a")
    assert three.keys() == {
        "10.5.1.0-24": '{"PublicIP":"192.168.77.1","PublicIPv6":null}',
        "10.5.2.0-24": '{"PublicIP":"192.168.77.2","PublicIPv6":null}',
    }
    registry = three.overlay.status(three.lab.host("a"))["registry"]
    assert (registry["kind"], registry["source"]) == ("etcd", "http://192.168.77.1:2379")
    assert registry["age_s"] < 60
    three.start("c")
    for here, there in (("a", "c"), ("c", "b")):
        three.knows(here, *{"a", "b", "c"} - {here})
        three.reach(here, there)


@pytest.mark.parametrize("how", ["authority alone", "both sides", "login"])
def test_what_the_flags_give_lets_daemon_and_cleanup_in(tmp_path, how):
    """Certificates and a password as an operator gives them: the real programs, and an etcd that refuses others."""
    with Lab() as lab:
        a = lab.hosts[0]
        authority = Authority(tmp_path / "ca", a.address)
        client, ca = authority.client, f"--etcd-cafile={authority.ca.cert}"
        key = f"--etcd-keyfile={client.key}"
        more = {
            "authority alone": [],
            "both sides": [f"--etcd-certfile={client.cert}", key],
            "login": ["--etcd-username=node", "--etcd-password=s3cret"],
        }[how]
        enter, ports = a.namespace.argv(()), (2379, 2380)
        with (
            Etcd(authority=authority, mutual=how == "both sides", address=a.address, ports=ports, enter=enter) as etcd,
            Overlay(lab, "--static-subnets=", where := f"--etcd-endpoints={etcd.endpoints[0]}") as overlay,
        ):
            if how == "login":
                etcd.require_login("node", "s3cret")
            scene = Scene(lab, etcd, overlay)
            scene.configure()
            for host in lab.hosts:
                overlay.run_directory(host).mkdir()
                (overlay.run_directory(host) / "subnet.env").write_text(subnet_env(host, ipv6=False))
            refused = overlay.launch(a, *([ca] if more else []))
            until(lambda: "Couldn't fetch network config: " in refused.stderr.read_text(), NOTICED_S, "not refused")
            overlay.stop(a)
            for host in lab.hosts:
                overlay.launch(host, ca, *more)
            for host in lab.hosts:
                overlay.await_ready(host)
            scene.reach("a", "b")
            assert list(scene.keys()) == ["10.5.1.0-24", "10.5.2.0-24"]
            overlay.stop(a)
            file = overlay.run_directory(a) / "subnet.env"
            a.namespace.run(program(), "cleanup", f"--subnet-file={file}", where, ca, *more)
            assert list(scene.keys()) == ["10.5.2.0-24"]


@pytest.mark.parametrize("prefix", ["/pods/net", "pods/net"])
def test_a_network_at_another_prefix(prefix):
    """Daemon and cleanup; without a leading slash the keys have none, as flanneld's."""
    with scenery() as scene:
        a = scene.lab.host("a")
        scene.etcd.ctl("put", f"{prefix}/config", json.dumps(CONFIG))
        scene.overlay.launch(a, flag := f"--etcd-prefix={prefix}")
        scene.overlay.await_ready(a)
        keys = ("get", "--prefix", "--keys-only", f"{prefix}/subnets")
        assert scene.etcd.ctl(*keys).split() == [f"{prefix}/subnets/10.5.1.0-24"]
        assert scene.keys() == {}
        scene.overlay.stop(a)
        files = f"--subnet-file={scene.overlay.run_directory(a) / 'subnet.env'}"
        a.namespace.run(program(), "cleanup", files, f"--etcd-endpoints={scene.etcd.endpoints[0]}", flag)
        assert scene.etcd.ctl(*keys) == ""


def test_vxlan_keeps_its_mac_in_the_lease():
    """The lease says the VTEP's MAC in flannel's bytes, and a device that is made anew gets the same one."""
    with scenery() as scene:
        scene.config = {"Network": NETWORK, "SubnetLen": 24, "Backend": {"Type": "vxlan"}}
        scene.configure()
        scene.start("a", "b")
        a = scene.lab.host("a")
        scene.reach("a", "b")
        keys = scene.keys()
        [link] = json.loads(a.namespace.run("ip", "-j", "link", "show", "flannel.1"))
        assert keys["10.5.1.0-24"] == (
            '{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"vxlan",'
            f'"BackendData":{{"VNI":1,"VtepMAC":"{link["address"]}"}}}}'
        )
        scene.overlay.stop(a)
        a.namespace.run("ip", "link", "delete", "flannel.1")
        scene.start("a")
        scene.reach("b", "a")
        assert scene.keys() == keys


def test_the_subnet_file_is_sourced_as_scripts_do(pair):
    b = pair.lab.host("b")
    names = "$FLANNEL_NETWORK $FLANNEL_SUBNET $FLANNEL_MTU $FLANNEL_IPMASQ"
    script = f". {pair.overlay.run_directory(b)}/subnet.env; echo {names}"
    assert b.namespace.run("sh", "-c", script) == "10.5.0.0/16 10.5.2.1/24 1472 false\n"


def test_a_subnet_is_kept_over_a_restart(pair):
    """Even without a subnet file: the key says whose it is. And one lease of etcd's a node is enough."""
    b = pair.lab.host("b")
    keys, leases = pair.keys(), sorted(pair.etcd.leases())
    for _ in range(2):
        pair.overlay.stop(b)
        (pair.overlay.run_directory(b) / "subnet.env").unlink()
        pair.start("b")
    pair.reach("a", "b")
    assert (pair.keys(), sorted(pair.etcd.leases())) == (keys, leases)


def test_traffic_does_not_need_etcd(pair):
    a, b = pair.lab.hosts
    log = Log(pair.overlay.process(a))
    with probing(a.pod, b.pod, b.pod_address) as there, probing(b.pod, a.pod, a.pod_address) as back:
        pair.etcd.stop()
        text = becomes(pair.overlay, a, "degraded", FOLLOWED_S, "registry: cannot follow the leases since 20")
        assert "http://192.168.77.1:2379" in text
        assert readyz(a) == 200
        assert pair.overlay.status(a)["peers"][0]["public_ip"] == b.address
        until(lambda: pair.overlay.status(a)["registry"]["age_s"] > 2, FOLLOWED_S, "its view does not age")
        pair.etcd.start()
        pair.etcd.ready()
        for host in (a, b):
            becomes(pair.overlay, host, "ready", NOTICED_S)
        assert (there.lost(), back.lost()) == (0, 0)
    assert pair.overlay.status(a)["registry"]["age_s"] < 15
    assert len(log.lines("cannot follow the leases")) <= 4, "a line for each reason, and one when it is over"


def drops(overlay: Overlay, *hosts: Host) -> list[tuple[str, int]]:
    """What the daemons and the kernel have counted as dropped, for the message of a test that lost something."""
    return [
        (counter["name"], counter["value"])
        for host in hosts
        for status in [overlay.status(host)]
        for counter in (*status["counters"], *status["kernel"])
        if counter["value"] and "drop" in counter["name"]
    ]


def test_etcd_is_emptied_while_a_node_joins(three):
    """Nobody loses a peer, everybody's key is back at once, and the node that joins waits for the configuration."""
    a, b, c = three.lab.hosts
    with probing(a.pod, b.pod, b.pod_address) as there, probing(b.pod, a.pod, a.pod_address) as back:
        three.etcd.empty()
        joins = three.overlay.launch(c)
        missing = "Couldn't fetch network config: flannel config not found in etcd store"
        until(lambda: missing in joins.stderr.read_text(), NOTICED_S, "it does not say what it waits for")
        becomes(three.overlay, c, "starting", FOLLOWED_S, "the network's configuration")
        assert missing.partition(":")[0] in three.overlay.status(c)["registry"]["degraded"]
        until(lambda: sorted(three.keys()) == ["10.5.1.0-24", "10.5.2.0-24"], NOTICED_S, "the keys are not back")
        three.configure()
        three.overlay.await_ready(c)
        assert joins.stderr.read_text().count(missing) == 1
        three.knows("c", "a", "b")
        for host in (a, b):
            becomes(three.overlay, host, "ready", NOTICED_S)
        assert (there.lost(), back.lost()) == (0, 0), drops(three.overlay, a, b)
    assert sorted(three.keys()) == ["10.5.1.0-24", "10.5.2.0-24", "10.5.3.0-24"]
    three.reach("c", "a")
    three.reach("b", "c")


def test_a_deleted_key_takes_the_node_out_of_the_network(pair):
    b = pair.lab.host("b")
    process = pair.overlay.process(b)
    assert flannel0(b) == (["10.5.2.0/32"], ["10.5.0.0/16"])
    pair.etcd.ctl("del", f"{PREFIX}/subnets/10.5.2.0-24")
    assert process.wait(FOLLOWED_S) == 0
    assert "Lease has been revoked. Shutting down daemon." in process.stderr.read_text()
    assert flannel0(b) == ([], [])
    pair.knows("a")
    pair.start("b")  # takes the place of the daemon that has ended
    pair.reach("a", "b")


def test_a_key_in_other_hands_makes_the_node_start_over(pair):
    """With another subnet, in the same process; flannel0 and the subnet file follow."""
    b = pair.lab.host("b")
    process, stranger = pair.overlay.process(b), '{"PublicIP":"192.168.77.66","PublicIPv6":null}'
    pair.etcd.ctl("put", f"{PREFIX}/subnets/10.5.2.0-24", stranger)
    file = pair.overlay.run_directory(b) / "subnet.env"
    until(lambda: "FLANNEL_SUBNET=10.5.2.1/24" not in file.read_text(), FOLLOWED_S, "it keeps its subnet")
    pair.overlay.await_ready(b)
    [(name, _)] = [it for it in pair.keys().items() if b.address in it[1]]
    assert flannel0(b) == ([name.replace("-24", "/32")], ["10.5.0.0/16"])
    assert f"FLANNEL_SUBNET={name.removesuffix('0-24')}1/24\n" in file.read_text()
    assert pair.keys()["10.5.2.0-24"] == stranger
    told = process.stderr.read_text()
    assert "starting over: etcd: our subnet 10.5.2.0/24 belongs to 192.168.77.66 now" in told
    assert process.returncode is None
    until(lambda: len(pair.overlay.status(pair.lab.host("a"))["peers"]) == 2, FOLLOWED_S, "a does not know both")


@contextmanager
def flanneld(host: Host) -> Iterator[list[bytes]]:
    """What flanneld's socket would get; pings are answered as a pod behind it would. Nothing else runs there."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((host.address, PORT))
        return made

    def answer() -> None:
        while True:
            packet, sender = peer.recvfrom(65535)
            if not packet:
                return
            got.append(packet)
            if packet[0] >> 4 == 4 and packet[9] == packets.ICMP and packet[20] == 8:
                echo = bytes(4) + packet[24:]
                echo = echo[:2] + struct.pack("!H", packets.checksum(echo)) + echo[4:]
                there, here = (socket.inet_ntoa(packet[at : at + 4]) for at in (12, 16))
                peer.sendto(packets.ipv4(here, there, echo, protocol=packets.ICMP), sender)

    got: list[bytes] = []
    with host.namespace.call(listen) as peer:
        thread = threading.Thread(target=answer, name="flanneld")
        thread.start()
        try:
            yield got
        finally:
            peer.sendto(b"", (host.address, PORT))
            thread.join()


def test_a_peer_that_runs_flanneld(three):
    """Its key in flannel's exact bytes, on a lease of 24 hours; each renewal writes it again, and nobody feels it."""
    a, _, c = three.lab.hosts
    lease = three.etcd.ctl("lease", "grant", "86400").split()[1]
    put = (
        "put",
        f"--lease={lease}",
        f"{PREFIX}/subnets/10.5.3.0-24",
        f'{{"PublicIP":"{c.address}","PublicIPv6":null}}',
    )
    with flanneld(c):
        three.etcd.ctl(*put)
        three.knows("a", "b", "c")
        log = Log(three.overlay.process(a))
        with probing(a.pod, three.lab.host("b").pod, three.lab.host("b").pod_address) as probe:
            for _ in range(3):
                three.etcd.ctl(*put)
                three.reach("a", "c")
            assert probe.lost() == 0
        assert log.lines("routes published") == []
        three.reach("b", "c")
    [peer] = [it for it in three.overlay.status(a)["peers"] if it["public_ip"] == c.address]
    assert peer["subnets"] == ["10.5.3.0/24"]
    assert peer["rx_packets"] == 18
    three.etcd.ctl("lease", "revoke", lease)
    three.knows("a", "b")


def test_ipv6_goes_only_to_nodes_that_announce_it():
    """A and b are ours and do; c is as flanneld leaves it in a dual-stack network, and would damage such packets."""
    with scenery("a", "b", hosts=3, ipv6=True) as scene:
        a, b, c = scene.lab.hosts
        announced = '"BackendData":{"udpbackend":1,"ipv6":true}'
        assert scene.keys() == {
            f"10.5.{host.number}.0-24&fd00:5:0:{host.number}::-64": (
                f'{{"PublicIP":"{host.address}","PublicIPv6":null,{announced}}}'
            )
            for host in (a, b)
        }
        scene.etcd.ctl(
            "put", f"{PREFIX}/subnets/10.5.3.0-24&fd00:5:0:3::-64", f'{{"PublicIP":"{c.address}","PublicIPv6":null}}'
        )
        scene.knows("a", "b", "c")
        scene.knows("b", "a", "c")
        with flanneld(c) as got:
            assert traffic.ping(a.pod, b.pod_address6).received == 5
            assert traffic.ping(a.pod, c.pod_address6).received == 0
            scene.reach("a", "c")
        assert {packet[0] >> 4 for packet in got} == {4}


def test_another_configuration_is_told_not_followed(pair):
    a = pair.lab.host("a")
    pair.config = CONFIG | {"Network": "10.4.0.0/15"}
    pair.configure()
    becomes(pair.overlay, a, "degraded", FOLLOWED_S, "registry: restart needed since 20")
    pair.reach("a", "b")
    pair.config = CONFIG
    pair.configure()
    becomes(pair.overlay, a, "ready", FOLLOWED_S)
