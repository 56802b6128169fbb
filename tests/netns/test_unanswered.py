"""A peer that is gone is named while something is sent to it, and no verdict changes: one-way traffic looks like it."""

import signal
import subprocess
import urllib.request

import pytest
from counted import Tally
from running import becomes, verdict

from bench.lab import traffic
from bench.lab.daemon import HEALTHZ_PORT, program
from bench.lab.wait import until

SOON_S = 60.0


@pytest.fixture
def three(make_overlay):
    """Host a sends to b all the time, and to c nothing at all."""
    overlay = make_overlay(hosts=3)
    a, b, _ = overlay.lab.hosts
    assert traffic.ping(a.pod, b.pod_address).received
    sending = a.pod.start("ping", "-q", "-i", "0.2", b.pod_address, name="sending")
    yield overlay
    sending.stop()


def states(overlay, host):
    """The last column of the peers' rows in `status`."""
    where = overlay.run_directory(host) / "subnet.env"
    argv = host.namespace.argv([program(), "status", f"--subnet-file={where}"])
    text = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False).stdout
    return {line.split()[0]: line.split()[-1] for line in text.splitlines() if line.startswith(("b ", "c "))}


def page(host, path):
    """Of the health port; an error where it is not 200."""

    def fetch():
        with urllib.request.urlopen(f"http://{host.address}:{HEALTHZ_PORT}{path}", timeout=5) as answer:
            return answer.read().decode()

    return host.namespace.call(fetch)


def test_a_dead_peer_is_unanswered_and_the_verdict_stays_ready(three):
    a, b, c = three.lab.hosts
    tally = Tally(three, a)
    assert states(three, a) == {"b": "seen", "c": "silent"}
    dead = three._running.pop(b.name)
    dead.send(signal.SIGKILL)
    dead.wait(5)
    text = becomes(three, a, "ready", SOON_S, f"1 unanswered: {b.name} ({b.address})")
    assert (text.startswith("ready, 0 of 2 peers seen, "), verdict(three, a)["reasons"]) == (True, [])
    assert tally.peer(b.address)["unanswered_s"] >= 10
    assert (tally.peer(b.address)["state"], tally.peer(c.address)["state"]) == ("unanswered", "silent")
    assert states(three, a) == {"b": "unanswered", "c": "silent"}
    metrics = page(a, "/metrics")
    for state, count in {"seen": 0, "silent": 1, "unanswered": 1}.items():
        assert f'udpbackend_peers{{state="{state}"}} {count}.0' in metrics
    assert "udpbackend_degraded 0.0" in metrics
    assert page(a, "/readyz").startswith("udp-backend is ready")
    three.launch(b)
    three.await_ready(b)
    until(lambda: states(three, a) == {"b": "seen", "c": "silent"}, SOON_S, "b is not seen again")
    assert "unanswered" not in verdict(three, a)["text"]
