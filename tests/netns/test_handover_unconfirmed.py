"""The registry does not answer a successor: packets move by the last table, and whoever asks is told how old it is."""

from doctored import examine
from probe import probing
from running import Log
from test_etcd import _able_to_run_etcd, scenery  # noqa: F401 it skips here, too

from bench.lab.wait import LabError, until

PATIENCE_S = 20.0
OLD = "packets move by the last daemon's routes"


def told(overlay, host):
    """The verdict and the age of the inherited table; nothing while the status socket changes hands."""
    try:
        found = overlay.status(host)
    except LabError:
        return None
    return found["verdict"], found["restart"]["inherited_age_s"]


def test_the_last_table_counts_as_old_until_the_registry_confirms_it():
    with scenery("a", "b") as scene:
        (a, b), overlay = scene.lab.hosts, scene.overlay
        scene.knows("a", "b")
        old, log = overlay.process(a), Log(overlay.process(a))
        assert told(overlay, a)[1] is None

        def inherited():
            found = told(overlay, a)
            return found is not None and found[0]["state"] == "starting" and found[1]

        with probing(a.pod, b.pod, b.pod_address) as there, probing(b.pod, a.pod, a.pod_address) as back:
            scene.etcd.silence()
            try:
                overlay.launch(a)
                log.shows("took over 1 queue", PATIENCE_S)
                age_s = until(inherited, PATIENCE_S, "it does not say that its table is inherited")
                until(lambda: inherited() > age_s + 1, PATIENCE_S, "the table grows no older")
                verdict, _ = told(overlay, a)
                assert OLD in verdict["text"]
                assert old.returncode is None
                found = examine(overlay, a).findings["daemon"]
                assert found["severity"] == "part"
                assert OLD in found["evidence"]
                there.flows(PATIENCE_S)
                back.flows(PATIENCE_S)
            finally:
                scene.etcd.wake()
            overlay.await_ready(a)
            verdict, age_s = told(overlay, a)
            assert age_s is None
            assert OLD not in verdict["text"]
            assert (there.lost(), back.lost()) == (0, 0)
        assert "daemon" not in examine(overlay, a).findings
        assert old.stop() == 0
