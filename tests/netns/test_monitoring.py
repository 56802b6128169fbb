"""deploy/monitoring: a real Prometheus scrapes real daemons; each alert fires and clears, each query has its metric."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from bench.lab.daemon import HEALTHZ_PORT
from bench.lab.wait import until

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
METRIC = re.compile(r"\b((?:udpbackend|process)_[a-z0-9_]+)")
PORT = 19090
LONGEST_S = 60.0
WITH_TRAFFIC_ONLY = {"udpbackend_peer_path_mtu_bytes"}
"""Metrics that a healthy network has no sample of."""


def rules():
    [group] = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return group["rules"]


def dashboard():
    """Every query of the dashboard, with Grafana's own variables as Grafana would fill them in."""
    filled = {"$__rate_interval": "1m", "$__range": "1h", "$node": ".*"}
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            query = target["expr"]
            for name, text in filled.items():
                query = query.replace(name, text)
            yield panel["title"], query


@pytest.fixture(scope="module")
def prometheus(overlay, tmp_path_factory):
    """Asks a Prometheus on host a, which scrapes both daemons by their healthz ports and has our rules."""
    a = overlay.lab.hosts[0]
    directory = tmp_path_factory.mktemp("prometheus")
    targets = [f"{host.address}:{HEALTHZ_PORT}" for host in overlay.lab.hosts]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(MONITORING / "alerts.yaml")],
        "scrape_configs": [{"job_name": "udp-backend", "static_configs": [{"targets": targets}]}],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    server = a.namespace.start(
        *("prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"),
        f"--web.listen-address={a.address}:{PORT}",
        name="prometheus",
    )

    def ask(path, **words):
        url = f"http://{a.address}:{PORT}/api/v1/{path}?{urllib.parse.urlencode(words)}"

        def fetch():
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]

        try:
            return a.namespace.call(fetch)
        except OSError:  # not yet
            return None

    def scraped():
        assert server.returncode is None, server.tail()
        found = ask("query", query='up{job="udp-backend"} == 1')
        return found and len(found["result"]) == len(targets)

    until(scraped, LONGEST_S, "Prometheus has not scraped both daemons")
    yield ask
    server.stop()


def test_each_alert_fires_and_clears_as_promtool_finds_it():
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts.test.yaml"], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = yaml.safe_load((MONITORING / "alerts.test.yaml").read_text())["tests"]
    expected = {(it["alertname"], bool(it["exp_alerts"])) for case in cases for it in case["alert_rule_test"]}
    assert expected == {(rule["alert"], fires) for rule in rules() for fires in (True, False)}


def test_every_metric_that_a_rule_or_a_panel_names_is_scraped(prometheus, overlay):
    queries = [rule["expr"] for rule in rules()] + [query for _, query in dashboard()]
    named = {name for query in queries for name in METRIC.findall(query)} - WITH_TRAFFIC_ONLY
    assert len(named) >= 15
    known = set(prometheus("label/__name__/values"))
    assert named <= known, named - known
    assert all(query.count("{") == query.count("}") for query in queries)


def test_a_panel_shows_what_passes(prometheus, overlay):
    a, b = overlay.lab.hosts
    a.pod.run("ping", "-c", "20", "-i", "0.05", "-W", "5", b.pod_address)
    [packets] = [query for title, query in dashboard() if title == "Packets" and "tx_packets" in query]

    def shown():
        found = prometheus("query", query=packets)["result"]
        return all(float(it["value"][1]) > 0 for it in found) and len(found) == len(overlay.lab.hosts)

    until(shown, LONGEST_S, "the panel of packets stays empty")
    for title, query in dashboard():
        assert prometheus("query", query=query)["resultType"] == "vector", title


def test_nothing_is_alarming_on_a_healthy_network(prometheus):
    assert prometheus("alerts")["alerts"] == []
    groups = prometheus("rules")["groups"]
    assert {rule["name"] for rule in groups[0]["rules"]} == {rule["alert"] for rule in rules()}
    assert all(rule["health"] in ("ok", "unknown") for rule in groups[0]["rules"])


def test_the_programs_are_debians():
    assert shutil.which("prometheus")
    assert shutil.which("promtool")
