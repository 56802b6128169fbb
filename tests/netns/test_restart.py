"""Stopping and starting again: quick, without a trace in the routes, and without an end to anybody's connection."""

import http.client
import json
import os
import signal
import socket
import time

import pytest
from announced import listen, told
from connections import PATIENCE_S, connection, echoes
from probe import probing

from bench.lab.daemon import HEALTHZ_PORT

PROMISED_S = 1.0
NOISE_S = 0.5
"""What a busy machine may add to it."""
ADDRESSES_AND_ROUTES = 0x10 | 0x40  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE of linux/rtnetlink.h


def shown(namespace, *words):
    return json.loads(namespace.run("ip", "-j", *words))


def device(host):
    [link] = shown(host.namespace, "link", "show", "flannel0")
    return link


def addresses(host):
    [link] = shown(host.namespace, "-4", "addr", "show", "flannel0")
    return [f"{it['local']}/{it['prefixlen']}" for it in link["addr_info"]]


def routes(host):
    return [route["dst"] for route in shown(host.namespace, "route", "show", "dev", "flannel0")]


def end(overlay, host, number):
    """Ends that host's daemon with a signal; its exit status and the seconds it took."""
    process = overlay.process(host)
    began = time.monotonic()
    process.send(number)
    return process.wait(PATIENCE_S), time.monotonic() - began


def start(overlay, host, *arguments):
    overlay.launch(host, *arguments)
    overlay.await_ready(host)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_at_once_and_leaves_the_network(make_overlay, number):
    """Under traffic, and with a scraper's connection open, which waits for the next request."""
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    run = overlay.run_directory(a)
    before = (device(a)["ifindex"], (run / "subnet.env").read_text())

    def connect():
        scraper = http.client.HTTPConnection(a.address, HEALTHZ_PORT, timeout=5)
        scraper.request("GET", "/metrics")
        scraper.getresponse().read()
        return scraper

    with probing(a.pod, b.pod, b.pod_address):
        scraper = a.namespace.call(connect)
        status, took = end(overlay, a, number)
        scraper.close()
    assert status == 0
    assert took < PROMISED_S + NOISE_S
    assert (device(a)["ifindex"], (run / "subnet.env").read_text()) == before
    assert (addresses(a), routes(a)) == (["10.5.1.0/32"], ["10.5.0.0/16"])
    assert [path.name for path in run.iterdir()] == ["subnet.env"], "the status socket is gone, nothing else is there"
    start(overlay, a)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_connection_outlives_the_daemon(make_overlay, number):
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    with connection(a, b) as (near, far):
        assert echoes(near, far, b"before")
        end(overlay, a, number)
        near.sendall(b"meanwhile")  # lost on the way, and sent again by TCP once there is a way
        start(overlay, a)
        assert far.recv(9, socket.MSG_WAITALL) == b"meanwhile"
        assert echoes(near, far, b"after")
        end(overlay, a, number)
        start(overlay, a)
        assert echoes(near, far, b"and once more")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_the_device_is_taken_over_as_it_is(make_overlay, number):
    """The kernel tells of every change of an address or a route: there is none to tell of."""
    overlay = make_overlay()
    a, _ = overlay.lab.hosts
    index = device(a)["ifindex"]
    with a.namespace.call(lambda: listen(ADDRESSES_AND_ROUTES)) as changes:
        a.namespace.ip("route add 203.0.113.0/24 dev cni0")
        assert told(changes) == 1
        end(overlay, a, number)
        start(overlay, a)
        assert told(changes) == 0
    assert device(a)["ifindex"] == index
    assert (addresses(a), routes(a)) == (["10.5.1.0/32"], ["10.5.0.0/16"])
    assert "took over flannel0 and mended" not in overlay.process(a).stderr.read_text()


def test_a_restart_with_another_subnet_and_network_tidies_up(make_overlay, tmp_path):
    overlay = make_overlay()
    a, _ = overlay.lab.hosts
    index = device(a)["ifindex"]
    overlay.stop(a)
    registry = json.loads((overlay.lab.directory / "subnets.json").read_text())
    registry["Network"] = "10.4.0.0/15"
    registry["Nodes"][0]["Subnet"] = "10.4.9.0/24"
    (tmp_path / "subnets.json").write_text(json.dumps(registry))
    start(overlay, a, f"--static-subnets={tmp_path}/subnets.json")
    assert (addresses(a), routes(a)) == (["10.4.9.0/32"], ["10.4.0.0/15"])
    assert device(a)["ifindex"] == index
    assert (overlay.run_directory(a) / "subnet.env").read_text().splitlines()[:2] == [
        "FLANNEL_NETWORK=10.4.0.0/15",
        "FLANNEL_SUBNET=10.4.9.1/24",
    ]


def told_of_state(manager):
    """The next message that is not about fds to be kept."""
    while True:
        data, fds, _, _ = socket.recv_fds(manager, 4096, 4)
        for fd in fds:
            os.close(fd)
        lines = data.decode().splitlines()
        if not lines[0].startswith(("FDSTORE", "BARRIER")):
            return lines


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_the_service_manager_is_told(make_overlay, monkeypatch, tmp_path, abstract):
    """Ready only when the CNI plugin finds its file, how many nodes, and stopping before anything is taken down."""
    overlay = make_overlay(start=False)
    a, _ = overlay.lab.hosts
    name = "udpb-test-notify" if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)

    def listen():
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.settimeout(PATIENCE_S)
        made.bind(f"\0{name}" if abstract else name)
        return made

    with a.namespace.call(listen) as manager:
        process = overlay.launch(a)
        ready = told_of_state(manager)
        assert (overlay.run_directory(a) / "subnet.env").read_text().endswith("FLANNEL_IPMASQ=false\n")
        assert ready == ["READY=1", "STATUS=subnet 10.5.1.0/24, 2 nodes"]
        assert overlay.status(a)["verdict"]["state"] == "ready"
        document = json.loads(overlay.registry.read_text())
        document["Nodes"].append({"Name": "c", "PublicIP": "192.168.77.77", "Subnet": "10.5.77.0/24"})
        overlay.registry.write_text(json.dumps(document))
        assert told_of_state(manager) == ["STATUS=subnet 10.5.1.0/24, 3 nodes"]
        overlay.stop(a)
        assert told_of_state(manager) == ["STOPPING=1"]
        assert process.returncode == 0


def test_what_nobody_was_there_to_read_is_not_called_a_full_queue(make_overlay):
    """The kernel counts it as dropped at the device, which outlives the daemons."""
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    overlay.stop(a)
    a.pod.run("ping", "-n", "-c3", "-i0.2", "-W1", b.pod_address, check=False)
    [link] = shown(a.namespace, "-s", "link", "show", "flannel0")
    assert link["stats64"]["tx"]["dropped"] >= 3
    start(overlay, a)
    kernel = {it["name"]: it["value"] for it in overlay.status(a)["kernel"]}
    assert kernel["flannel0_tx_dropped"] == 0
