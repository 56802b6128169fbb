"""Edits of the registry while the daemons run: followed within a second, refused without harm to anybody's packets."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from probe import Probe, probing
from running import Log, becomes

from bench.lab.daemon import Overlay, program
from bench.lab.topology import Host
from bench.lab.wait import until

FOLLOWED_S = 2.0
"""A second is promised; the rest is for a busy machine."""
THIRD = {"Name": "c", "PublicIP": "192.168.77.3", "Subnet": "10.5.3.0/24"}


@dataclass
class Registry:
    """The file of one host's daemon, which the other does not read: their views may differ."""

    path: Path
    good: str

    def write(self, text: str) -> None:
        """Replaces the file as editors do: the new one is complete when it takes the name."""
        draft = self.path.with_suffix(".new")
        draft.write_text(text)
        draft.rename(self.path)

    def edit(self, change) -> None:
        """Lets `change` alter the document that was good at the start, and writes it."""
        document = json.loads(self.good)
        change(document)
        self.write(json.dumps(document, indent=2))


@dataclass
class Scene:
    overlay: Overlay
    host: Host
    registry: Registry
    probe: Probe
    log: Log

    def routes(self) -> int:
        return int(self.overlay.status(self.host)["routes"])

    def leads(self, count: int) -> None:
        """Waits until so many routes are published."""
        until(lambda: self.routes() == count, FOLLOWED_S, f"not {count} routes")


@pytest.fixture
def scene(make_overlay, tmp_path):
    """Host a with a registry of its own, under traffic of which nothing may be lost, whatever is edited."""
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    registry = Registry(tmp_path / "subnets.json", (overlay.lab.directory / "subnets.json").read_text())
    registry.write(registry.good)
    overlay.launch(a, f"--static-subnets={registry.path}")
    overlay.launch(b)
    for host in overlay.lab.hosts:
        overlay.await_ready(host)
    with probing(a.pod, b.pod, b.pod_address) as there, probing(b.pod, a.pod, a.pod_address) as back:
        yield Scene(overlay, a, registry, there, Log(overlay.process(a)))
        assert (there.lost(), back.lost()) == (0, 0)


def test_nodes_come_and_go(scene):
    scene.registry.edit(lambda document: document["Nodes"].append(THIRD))
    scene.leads(2)
    assert [peer["node"] for peer in scene.overlay.status(scene.host)["peers"]] == ["b", "c"]
    scene.log.shows("3 nodes, revision 2: routes published", FOLLOWED_S)
    scene.registry.write(scene.registry.good)
    scene.leads(1)
    becomes(scene.overlay, scene.host, "ready", FOLLOWED_S)


def test_an_edit_in_place_is_followed_too(scene):
    document = json.loads(scene.registry.good)
    document["Nodes"].append(THIRD)
    scene.registry.path.write_text(json.dumps(document))
    scene.leads(2)


def test_a_file_behind_a_symlink_is_followed_too(scene):
    """As Kubernetes mounts a ConfigMap: what changes is where a link leads."""
    path, elsewhere = scene.registry.path, scene.registry.path.with_name("elsewhere.json")
    document = json.loads(scene.registry.good)
    document["Nodes"].append(THIRD)
    elsewhere.write_text(json.dumps(document))
    link = path.with_name("link")
    link.symlink_to(elsewhere.name)
    link.rename(path)
    scene.leads(2)


def outside(document):
    document["Nodes"].append(THIRD | {"Subnet": "10.6.3.0/24"})


def twice(document):
    document["Nodes"].append(THIRD | {"PublicIP": "192.168.77.2"})


BROKEN = {
    "cut off": (lambda registry: registry.write(registry.good[:60]), "not valid JSON: line "),
    "outside the network": (lambda registry: registry.edit(outside), "Nodes[2].Subnet: 10.6.3.0/24 is not inside"),
    "one public IP twice": (lambda registry: registry.edit(twice), "Nodes[2].PublicIP: 192.168.77.2 is that of"),
    "gone": (lambda registry: registry.path.unlink(), "No such file or directory"),
}


@pytest.mark.parametrize(("breaks", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_edit_changes_nothing_but_the_verdict(scene, breaks, reason):
    breaks(scene.registry)
    text = becomes(scene.overlay, scene.host, "degraded", FOLLOWED_S, reason)
    assert str(scene.registry.path) in text
    line = scene.log.shows("the leases in use stay as they were", FOLLOWED_S)
    assert line.startswith("W")
    assert reason in line
    assert scene.routes() == 1
    run = scene.overlay.run_directory(scene.host)
    told = scene.host.namespace.run(program(), "status", f"--subnet-file={run}/subnet.env", check=False)
    assert reason in told.splitlines()[0]
    scene.registry.write(scene.registry.good)
    becomes(scene.overlay, scene.host, "ready", FOLLOWED_S)
    scene.log.shows(f"{scene.registry.path} is good again", FOLLOWED_S)
    assert len(scene.log.lines("the leases in use stay as they were")) == 1, "told once, not at every look"


def other_subnet(document):
    document["Nodes"][0]["Subnet"] = "10.5.9.0/24"


def other_network(document):
    document["Network"] = "10.4.0.0/15"


def other_port(document):
    document["Backend"]["Port"] = 9000


def without_us(document):
    del document["Nodes"][0]


UNFOLLOWABLE = {
    "own subnet": (other_subnet, "the Subnet of this host (192.168.77.1) has changed from 10.5.1.0/24 to 10.5.9.0/24"),
    "network": (other_network, "Network has changed from 10.5.0.0/16 to 10.4.0.0/15"),
    "port": (other_port, "Backend has changed"),
    "own node gone": (without_us, "this host (192.168.77.1) is no longer among the nodes"),
}


@pytest.mark.parametrize(("change", "reason"), UNFOLLOWABLE.values(), ids=UNFOLLOWABLE)
def test_what_needs_a_restart_is_said_and_not_done(scene, change, reason):
    scene.registry.edit(change)
    text = becomes(scene.overlay, scene.host, "degraded", FOLLOWED_S, "restart needed")
    assert reason in text
    assert reason in scene.log.shows("restart needed", FOLLOWED_S)
    assert scene.routes() == 1
    assert "10.5.1.0" in scene.host.namespace.run("ip", "address", "show", "flannel0")
    scene.registry.write(scene.registry.good)
    becomes(scene.overlay, scene.host, "ready", FOLLOWED_S)
