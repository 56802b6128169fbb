"""A handover breaks off after any of its words, because one of the two has died: the other one moves the packets."""

import json
import signal

import pytest
from middleman import Middleman
from probe import probing
from running import Log

from bench.lab.wait import until

WORDS = {
    "the old one": ("state", "prepared", "counted", "turning", "leave"),
    "the new one": ("prepared", "counted", "served", "leave"),
}
"""By who dies: the words after which."""
PATIENCE_S = 20.0


LOSES = {("the new one", "leave")}
"""Who dies alone with the queues loses what comes until the other one has started."""


@pytest.mark.parametrize("dies", ["the old one", "the new one"])
def test_whoever_is_left_goes_on(make_overlay, dies):
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    for word in WORDS[dies]:
        offered = overlay.run_directory(a) / "offered.sock"
        old, log = overlay.process(a), Log(overlay.process(a))
        victims = [old]

        def said(passed, word=word, victims=victims):
            if passed != word:
                return False
            victims[0].send(signal.SIGKILL)
            victims[0].wait(PATIENCE_S)
            return True

        with probing(b.pod, a.pod, a.pod_address) as probe:
            between = Middleman(a.namespace, overlay.run_directory(a) / "subnet.sock", offered, said)
            new = overlay.launch(a, f"--status-socket={offered}")
            if dies == "the new one":
                victims[0] = new
            between.join()
            assert between.words[-1] == word
            survivor = old if victims[0] is new else new
            if (dies, word) in LOSES:
                (log if survivor is old else Log(new, whole=True)).shows("ready: subnet", PATIENCE_S)
            probe.flows(PATIENCE_S)
            lost = probe.lost()
        assert lost == 0 or (dies, word) in LOSES, word
        assert "Traceback" not in survivor.stderr.read_text()
        if survivor is old:  # and it can be asked and taken over from once more
            overlay.reinstate(a, old)
            overlay.await_ready(a)
        assert survivor.stop(PATIENCE_S) == 0
        overlay.launch(a)
        overlay.await_ready(a)


@pytest.mark.parametrize("word", ["turning", "served"])
def test_the_old_one_goes_on_though_flannel0_was_deleted_meanwhile(make_overlay, word):
    """Its queues can be turned no more: it makes new ones, and answers, and follows the registry as ever."""
    overlay = make_overlay()
    a, b = overlay.lab.hosts
    offered = overlay.run_directory(a) / "offered.sock"
    old, log = overlay.process(a), Log(overlay.process(a))
    new = []

    def said(passed):
        if passed != word:
            return False
        new[0].send(signal.SIGKILL)
        new[0].wait(PATIENCE_S)
        a.namespace.ip("link delete flannel0")
        return True  # only now it is told

    between = Middleman(a.namespace, overlay.run_directory(a) / "subnet.sock", offered, said)
    new.append(overlay.launch(a, f"--status-socket={offered}"))
    between.join()
    overlay.reinstate(a, old)
    log.shows("flannel0 is back", PATIENCE_S)
    overlay.await_ready(a)
    with probing(a.pod, b.pod, b.pod_address) as probe:
        assert probe.lost() == 0
    document = json.loads(overlay.registry.read_text())
    document["Nodes"].append({"Name": "c", "PublicIP": "192.168.77.77", "Subnet": "10.5.77.0/24"})
    overlay.registry.write_text(json.dumps(document))
    until(lambda: overlay.status(a)["routes"] == 2, PATIENCE_S, "an edit is not followed")
    assert "Traceback" not in old.stderr.read_text()
