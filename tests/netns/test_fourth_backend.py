"""A fourth backend is one new file: all else of the daemon and of its commands works with it as it stands."""

import json
import sys
from pathlib import Path

import fourth_backend
import pytest
from doctored import examine
from fourth_backend import DEVICE, KIND, MTU
from kernel_overlay import edit, kernel_overlay, link, routes, shown
from running import becomes
from test_status import get

from bench.lab import daemon, traffic
from bench.lab.wait import until

REPAIRED_S = 5.0


@pytest.fixture
def program(able, tmp_path, monkeypatch):
    """What the laboratory starts in the place of udp-backend."""
    path = tmp_path / "udp-backend"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(fourth_backend.__file__)} "$@"\n')
    path.chmod(0o755)
    monkeypatch.setattr(daemon, "program", lambda: str(path))
    return str(path)


def devices(host):
    return {it["ifname"] for it in shown(host.namespace, "link", "show") if it["ifname"].startswith("flannel")}


def cleanup(program, overlay, host):
    return host.namespace.run(program, "cleanup", f"--subnet-file={overlay.run_directory(host)}/subnet.env")


def becomes_udp(registry):
    document = json.loads(registry.read_text())
    registry.write_text(json.dumps(document | {"Backend": {"Type": "udp"}}))


def test_it_runs_and_all_parts_know_it(program):
    with kernel_overlay({"Type": KIND}, pod_mtu=MTU) as overlay:
        a, b = overlay.lab.hosts
        for here, there in ((a, b), (b, a)):
            found = traffic.ping(here.pod, there.pod_address)
            assert found.received == found.sent
        status = overlay.status(a)
        assert (status["network"]["backend"], status["routes"]) == (KIND, 1)
        assert (status["interface"]["overlay_device"], status["interface"]["overlay_mtu"]) == (DEVICE, MTU)
        assert f"FLANNEL_MTU={MTU}" in (overlay.run_directory(a) / "subnet.env").read_text()
        assert [(it["name"], it["value"]) for it in status["kernel"]] == [("fourth_dropped", 4)]
        assert f'backend="{KIND}"' in get(a, "/metrics")[2]
        examine(overlay, a).nothing()

        a.namespace.ip(f"route delete {b.subnet}")
        until(lambda: b.subnet in routes(a.namespace), REPAIRED_S, "not repaired")
        edit(overlay, lambda nodes: nodes[1].update(BackendType="vxlan"))
        becomes(overlay, a, "ready", REPAIRED_S, "no peers yet, 1 node of another backend ignored")

        overlay.stop(a)
        examine(overlay, a).only("daemon")
        assert link(a.namespace, DEVICE)["mtu"] == MTU, "it outlives the daemon"
        said = cleanup(program, overlay, a)
        assert f"removed device {DEVICE}\n" in said
        assert devices(a) == set()


def test_another_backend_removes_what_it_has_left(program):
    with kernel_overlay({"Type": KIND}, pod_mtu=MTU) as overlay:
        a, b = overlay.lab.hosts
        for host in (a, b):
            overlay.stop(host)
        becomes_udp(overlay.registry)
        overlay.start_all()
        assert devices(a) == {"flannel0"}
        assert b.subnet not in routes(a.namespace)
        found = traffic.ping(a.pod, b.pod_address)
        assert found.received == found.sent
