"""What an operator and a scraper are told by a running daemon, asked as they ask: by the program and over HTTP."""

import http.client
import json
import re
import stat
import subprocess

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.lab import traffic
from bench.lab.daemon import HEALTHZ_PORT, program
from bench.lab.wait import until
from udpbackend.observe.reference import SCHEMA


@pytest.fixture
def host(overlay):
    """Host a, whose daemon has something to tell of."""
    a, b = overlay.lab.hosts
    assert traffic.ping(a.pod, b.pod_address).received
    return a


def ask(overlay, host, *options, socket=None):
    """Runs the status command: its exit status, its lines and what it says on stderr."""
    where = socket or overlay.run_directory(host) / "subnet.sock"
    argv = host.namespace.argv([program(), "status", f"--status-socket={where}", *options])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr


def get(host, path, method="GET"):
    """An answer of the health port: its status, its type, its text."""

    def request():
        connection = http.client.HTTPConnection(host.address, HEALTHZ_PORT, timeout=5)
        connection.request(method, path)
        answer = connection.getresponse()
        try:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
        finally:
            connection.close()

    return host.namespace.call(request)


def test_the_verdict_comes_first(overlay, host):
    status, lines, errors = ask(overlay, host)
    assert (status, errors) == (0, "")
    assert re.fullmatch(r"ready, 1 of 1 peer seen, registry view \d+ s old", lines[0])
    text = "\n".join(lines)
    for words in ("10.5.0.0/16", "10.5.1.0/24", "eth0", "192.168.77.1", "1472", "flannel0", "8285", "unexplained 0"):
        assert words in text
    assert re.search(r"^b +192\.168\.77\.2 +10\.5\.2\.0/24 ", text, re.MULTILINE), text


def test_wide_shows_more(overlay, host):
    status, lines, _ = ask(overlay, host, "-o", "wide")
    assert status == 0
    for words in ("SOURCE-CHECK", "LOOP-LAG", "TX-BYTES", "subnets.json"):
        assert words in "\n".join(lines)
        assert words not in "\n".join(ask(overlay, host)[1])


def test_the_document_keeps_to_its_schema(overlay, host):
    status, lines, _ = ask(overlay, host, "-o", "json")
    assert status == 0
    document = json.loads("\n".join(lines))
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    assert document["verdict"]["state"] == "ready"
    assert document["interface"] | {"mtu": 1500, "overlay_mtu": 1472} == document["interface"]
    [peer] = document["peers"]
    assert (peer["node"], peer["subnets"]) == ("b", ["10.5.2.0/24"])
    assert peer["tx_packets"] >= 5
    assert peer["silent_s"] is not None


def test_without_a_daemon(overlay, host, tmp_path):
    nobody = tmp_path / "subnet.sock"
    expected = f"udp-backend: not running: nobody listens on {nobody}\n"
    assert ask(overlay, host, socket=nobody) == (3, [], expected)


@pytest.mark.parametrize("options", [("-o", "yaml"), ("--watch=0",), ("--port=1",), ("more",)])
def test_wrong_usage(overlay, host, options):
    status, lines, errors = ask(overlay, host, *options)
    assert (status, lines) == (2, [])
    assert errors.startswith("udp-backend: ")
    assert errors.count("\n") == 1
    assert re.split(r"[ =]", options[-1])[-1] in errors


def test_watching_prints_again_and_again(overlay, host):
    where = overlay.run_directory(host) / "subnet.sock"
    watching = host.namespace.start(program(), "status", f"--status-socket={where}", "-w", "0.1", name="watch")
    try:
        until(lambda: len(re.findall(r"^ready, ", watching.stdout.read_text(), re.MULTILINE)) >= 2, 10, "no two blocks")
        assert watching.returncode is None
    finally:
        watching.send(2)
        assert watching.wait(5) == 0, "Ctrl-C is the way out of it"


def test_only_root_may_ask(overlay, host):
    mode = (overlay.run_directory(host) / "subnet.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_health_and_readiness(overlay, host):
    assert get(host, "/healthz") == (200, "text/plain; charset=utf-8", "udp-backend is running\n")
    code, kind, text = get(host, "/readyz")
    assert (code, kind) == (200, "text/plain; charset=utf-8")
    assert re.fullmatch(r"udp-backend is ready, registry view \d+ s old\n", text)
    assert get(host, "/healthz", "HEAD")[0] == 200
    assert get(host, "/status")[0] == 404, "the document is for root, on the socket"


def test_the_metrics_are_the_status_in_numbers(overlay, host):
    """Nothing is sent meanwhile, so that both tell of the same moment."""
    overlay.settle(host)
    status, kind, text = get(host, "/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, sample.labels.get("direction"), sample.labels.get("reason")] = sample.value
    counters = overlay.status(host)["counters"]
    assert len(counters) > 30
    for counter in counters:
        name, direction = counter["name"], counter["direction"]
        key = {
            "received": (f"udpbackend_{direction}_received_packets_total", None, None),
            "delivered": (f"udpbackend_{direction}_packets_total", None, None),
            "dropped": ("udpbackend_dropped_packets_total", direction, name.removeprefix(f"{direction}_drop_")),
            "note": (f"udpbackend_{name}_total", None, None),
        }[counter["kind"]]
        assert found[key] == counter["value"], key
    assert found["udpbackend_tx_packets_total", None, None] >= 5
    assert found["udpbackend_unexplained_packets", "tx", None] == 0
