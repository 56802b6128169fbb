"""The kernel's dataplane from its start to its end: it replaces userspace's and is replaced, and is cleaned up.

And what its tunnels do on a path that is narrower than the interface.
"""

import signal

import pytest
from connections import connection, echoes
from fou_facts import KERNEL, fou_ports, kind, require_fou
from kernel_overlay import routes, shown
from running import Log, becomes

from bench.lab import traffic
from bench.lab.daemon import Overlay, program
from bench.lab.routed import RoutedLab
from bench.lab.topology import Lab
from bench.lab.wait import until

PATH_BYTES = 1300
DEADLINE_S = 30


@pytest.fixture(autouse=True)
def fou(able):
    require_fou()


@pytest.fixture
def overlay():
    with Lab(ipv6=True) as lab, Overlay(lab) as made:
        made.start_all()
        yield made


def pings(a, b):
    for address in (b.pod_address, b.pod_address6):
        found = traffic.ping(a.pod, address)
        assert found.received == found.sent


def tables(host):
    return [line for line in host.namespace.run("nft", "list", "tables").splitlines() if "udpbackend" in line]


def test_each_dataplane_replaces_the_other_and_connections_live(overlay):
    a, b = overlay.lab.hosts
    with connection(a, b) as ends:
        assert echoes(*ends, b"before")
        for change in (to_kernel_from_a_running_daemon, back_after_a_stop, to_kernel_after_a_kill):
            change(overlay, b)
            assert echoes(*ends, change.__name__.encode())
            pings(a, b)

    overlay.stop(b)
    said = b.namespace.run(program(), "cleanup", f"--subnet-file={overlay.run_directory(b)}/subnet.env")
    for what in ("device flannel0", "FOU port 8285 of 192.168.77.2", "device flannel0-v6"):
        assert f"removed {what}\n" in said, said
    assert nothing_is_left(b)

    overlay.launch(b, *KERNEL, "--cleanup-on-exit")
    overlay.await_ready(b)
    pings(a, b)
    overlay.stop(b)
    assert nothing_is_left(b)
    overlay.stop_all()


def to_kernel_from_a_running_daemon(overlay, host):
    """Which hands its queues over to one that has no use for them."""
    last = overlay.process(host)
    log = Log(last)
    overlay.launch(host, *KERNEL)
    log.shows("ready: ", DEADLINE_S)
    overlay.await_ready(host)
    assert last.stop() == 0
    log.shows("removed flannel0, the TUN of the userspace dataplane", DEADLINE_S)
    assert (kind(host), kind(host, "flannel0-v6"), len(tables(host))) == ("ipip", "sit", 2)


def back_after_a_stop(overlay, host):
    """Devices, FOU port and rules go, which have carried packets until then."""
    log = Log(overlay.process(host))
    overlay.stop(host)
    pings(host, overlay.lab.host("a"))
    overlay.launch(host)
    overlay.await_ready(host)
    log.shows("the userspace dataplane takes over from the kernel's: removed flannel0, the ipip tunnel", DEADLINE_S)
    assert (kind(host), kind(host, "flannel0-v6"), fou_ports(host), tables(host)) == ("tun", None, [], [])
    assert "10.5.1.0/24" not in routes(host.namespace)


def to_kernel_after_a_kill(overlay, host):
    """The killed one leaves its TUN."""
    overlay.process(host).send(signal.SIGKILL)
    overlay.process(host).wait(DEADLINE_S)
    overlay.launch(host, *KERNEL, "--source-check=off", "--copy-dscp")
    overlay.await_ready(host)
    assert (kind(host), tables(host)) == ("ipip", ["table ip udpbackend-8285"])


def nothing_is_left(host):
    devices = [it["ifname"] for it in shown(host.namespace, "link", "show") if it["ifname"].startswith("flannel")]
    return (devices, fou_ports(host), tables(host), routes(host.namespace)) == ([], [], [], {})


def test_a_port_or_a_device_of_somebody_else_is_named_and_left_alone(overlay):
    a, _ = overlay.lab.hosts
    overlay.stop(a)
    a.namespace.ip("link delete flannel0")
    for there, removal, words in (
        ("link add other type ipip local 192.168.77.1", "link delete other", "other (ipip) leads from 192.168.77.1"),
        ("fou add port 8285 ipproto 4", "fou delete port 8285", "`ip fou del port 8285` removes it"),
        ("link add flannel0 type ipip local 192.168.77.1 remote 192.168.77.9", "link delete flannel0",
         "flannel0 (ipip) was made by another program"),
    ):  # fmt: skip
        a.namespace.ip(there)
        process = overlay.launch(a, *KERNEL)
        assert process.wait(DEADLINE_S) == 1
        assert words in process.tail()
        a.namespace.ip(removal)
        assert nothing_is_left(a)


def test_a_narrow_path_is_told_to_pods_and_ipv6_of_1280_crosses():
    lab = RoutedLab(PATH_BYTES)
    lab.ipv6 = True
    with lab, Overlay(lab, *KERNEL) as overlay:
        overlay.start_all()
        a, b = lab.hosts
        until(lambda: ping6(a, b, 1280), DEADLINE_S, "IPv6 of 1280 bytes does not cross")
        assert "mtu = 1272" in until(lambda: told(a, b), DEADLINE_S, "the pod is not told")
        for sender, receiver in ((a, b), (b, a)):
            assert ping6(sender, receiver, 1280)
            way = traffic.Way(sender.pod, receiver.pod, receiver.pod_address)
            assert traffic.tcp(way, seconds=1).received_bytes > 100_000
        becomes(overlay, a, "ready", DEADLINE_S)
        overlay.stop_all()


def ping6(sender, receiver, size):
    return traffic.ping(sender.pod, receiver.pod_address6, size=size - 48, dont_fragment=True, count=1).received == 1


def told(sender, receiver):
    """What ping says of a packet of the interface's MTU that may not be cut, once it is refused."""
    words = ("ping", "-n", "-c2", "-i0.2", "-W2", "-Mdo", "-s1444", receiver.pod_address)
    said = sender.pod.run(*words, check=False)
    return said if "Frag needed" in said or "Message too long" in said else ""
