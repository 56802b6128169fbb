"""An edit of the large registry counts as made when every host has published it, and not before."""

import json
from types import SimpleNamespace

import pytest

from bench.lab.wait import LabError
from bench.systems import scaled

HOSTS = (SimpleNamespace(name="a"), SimpleNamespace(name="b"))


class Slow(scaled.Scaled):
    """Its daemons publish some looks after the edit, each in its own time; None: never."""

    subnets = 1

    def __init__(self, path, takes):
        self.lab = SimpleNamespace(hosts=HOSTS)
        self.overlay = SimpleNamespace(registry=path)
        self.looks = dict.fromkeys(takes, 0)
        self._takes = takes

    def publications_logged(self, host):
        if "x" not in self.overlay.registry.read_text():
            return 7
        self.looks[host.name] += 1
        takes = self._takes[host.name]
        return 7 + (takes is not None and self.looks[host.name] > takes)


@pytest.fixture
def registry(tmp_path):
    path = tmp_path / "subnets.json"
    path.write_text(json.dumps({"Nodes": [{"Name": "a"}, {"Name": "n0"}]}))
    return path


def test_an_edit_is_over_when_the_slowest_has_published_it(registry):
    system = Slow(registry, {"a": 3, "b": 5})
    system.change()
    assert json.loads(registry.read_text())["Nodes"] == [{"Name": "a"}, {"Name": "n0x"}]
    assert system.looks == {"a": 4, "b": 6}


def test_a_host_that_does_not_publish_it_is_named(registry, monkeypatch):
    monkeypatch.setattr(scaled, "PUBLISHED_S", 0.0)
    with pytest.raises(LabError, match="host b: no new route table"):
        Slow(registry, {"a": 0, "b": None}).change()
