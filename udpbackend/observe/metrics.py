"""The Prometheus exposition: a report as metric families, and the two things only this process measures over time.

Owns the metrics' names. It must not collect facts itself, start a thread or touch the library's global registry. Labels
are bounded: a cause, a direction, a state, and a peer only while there are few.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from udpbackend.observe.build import build
from udpbackend.observe.facts import Facts
from udpbackend.observe.peers import PeerCount, count_peers
from udpbackend.observe.report import Report

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PREFIX = "udpbackend_"
PEERS_MAX = 256
"""With more peers than this their own series are left out: a cluster's series would grow with its square."""

PUBLISH_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Lives as long as the daemon; `render` turns facts into the text a scrape gets."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._publish = Histogram(
            PREFIX + "route_publish_seconds",
            "Time to build and publish a whole route table",
            buckets=PUBLISH_BUCKETS,
            registry=None,
        )

    def observe_publish(self, seconds: float) -> None:
        """Notes how long a publish took."""
        self._publish.observe(seconds)

    def render(self, facts: Facts) -> bytes:
        """The exposition, in the text format 0.0.4 that every scraper understands."""
        count = count_peers(facts)
        report = build(facts, peers_max=PEERS_MAX if count.total <= PEERS_MAX else 0)
        return generate_latest(_Scrape(self._families(report, count)))

    def _families(self, report: Report, count: PeerCount) -> Iterator[Metric]:
        yield from _state(report)
        yield from _traffic(report)
        yield from _losses(report)
        yield from _peers(report, count)
        yield from self._registry.collect()
        for family in self._publish.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class _Scrape(Collector):
    """What the library wants to be handed: something to collect from, once."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _state(report: Report) -> Iterator[Metric]:
    network, registry = report.network, report.registry
    yield InfoMetricFamily(PREFIX + "build", "The version of udp-backend", {"version": report.version})
    labels = {
        "node": report.node,
        "backend": network.backend if network else "",
        "network": network.network if network else "",
        "subnet": (network.subnet or "") if network else "",
        "registry": registry.kind,
    }
    if network and network.ipv6_network:
        labels |= {"ipv6_network": network.ipv6_network, "ipv6_subnet": network.ipv6_subnet or ""}
    yield InfoMetricFamily(PREFIX.removesuffix("_"), "Which node of which network this is", labels)
    yield _gauge(
        "ready", "1 once packets flow and subnet.env is written, as /readyz says", report.verdict.state != "starting"
    )
    yield _gauge("degraded", "1 while something is wrong though packets flow", report.verdict.state == "degraded")
    yield _gauge("routes", "Prefixes in the published route table", report.routes)
    yield _gauge("loop_lag_seconds", "Longest lateness of the event loop in the last seconds", report.loop.lag_s)
    yield _gauge("registry_degraded", "1 while the registry's view cannot be refreshed", registry.degraded is not None)
    if registry.synced_at is not None:
        text = "When the registry's view was last known to be current, in Unix time"
        yield _gauge("registry_last_sync_timestamp_seconds", text, registry.synced_at.timestamp())


def _traffic(report: Report) -> Iterator[Metric]:
    totals = {"received": "{}_received_packets", "delivered": "{}_packets"}
    for counter in report.counters:
        if counter.kind in totals:
            name = totals[counter.kind].format(counter.direction)
        elif counter.kind == "note":
            name = counter.name
        else:
            continue
        text = f"{counter.meaning}; cure: {counter.cure}" if counter.cure else counter.meaning
        yield CounterMetricFamily(PREFIX + name, text, value=counter.value)


def _losses(report: Report) -> Iterator[Metric]:
    dropped = CounterMetricFamily(
        PREFIX + "dropped_packets",
        "Packets dropped, by cause; udpbackend_drop_reason_info says what each cause means and what cures it",
        labels=("direction", "reason"),
    )
    reasons = GaugeMetricFamily(
        PREFIX + "drop_reason_info",
        "Meaning and cure of each reason of udpbackend_dropped_packets_total; join on direction and reason",
        labels=("direction", "reason", "meaning", "cure"),
    )
    for counter in report.counters:
        if counter.kind == "dropped":
            reason = counter.name.removeprefix(f"{counter.direction}_drop_")
            dropped.add_metric((counter.direction, reason), counter.value)
            reasons.add_metric((counter.direction, reason, counter.meaning, counter.cure), 1)
    yield dropped
    yield reasons
    text = "Packets the kernel dropped beside us, by place; `udp-backend status` says what each means and what cures it"
    kernel = CounterMetricFamily(PREFIX + "kernel_dropped_packets", text, labels=("place",))
    for drops in report.kernel:
        kernel.add_metric((drops.name.removesuffix("_dropped"),), drops.value)
    yield kernel
    yield _gauge(
        "in_flight_packets", "Packets read from flannel0 that the socket has not taken yet", report.law.tx.in_flight
    )
    text = "Packets received and neither delivered, dropped nor in flight: a fault of the program if it stays above 0"
    unexplained = GaugeMetricFamily(PREFIX + "unexplained_packets", text, labels=("direction",))
    unexplained.add_metric(("tx",), report.law.tx.unexplained)
    unexplained.add_metric(("rx",), report.law.rx.unexplained)
    yield unexplained


def _peers(report: Report, count: PeerCount) -> Iterator[Metric]:
    text = "Peers by whether a good packet came from them lately, or none although we keep sending to them (unanswered)"
    states = GaugeMetricFamily(PREFIX + "peers", text, labels=("state",))
    states.add_metric(("seen",), count.seen)
    states.add_metric(("silent",), count.silent)
    states.add_metric(("unanswered",), count.unanswered)
    yield states
    if count.total > PEERS_MAX:
        return
    labels = ("peer", "direction")
    packets = CounterMetricFamily(PREFIX + "peer_packets", "Inner packets to and from a peer", labels=labels)
    size = CounterMetricFamily(PREFIX + "peer_bytes", "Bytes of inner packets to and from a peer", labels=labels)
    text = "Inner packets to a peer that found no room on the way to it, of those in udpbackend_dropped_packets"
    dropped = CounterMetricFamily(PREFIX + "peer_dropped_packets", text, labels=("peer",))
    text = "Smaller path MTU learned to a peer, of the outer path"
    mtu = GaugeMetricFamily(PREFIX + "peer_path_mtu_bytes", text, labels=("peer",))
    for peer in report.peers:
        packets.add_metric((peer.public_ip, "tx"), peer.tx_packets)
        packets.add_metric((peer.public_ip, "rx"), peer.rx_packets)
        size.add_metric((peer.public_ip, "tx"), peer.tx_bytes)
        size.add_metric((peer.public_ip, "rx"), peer.rx_bytes)
        dropped.add_metric((peer.public_ip,), peer.tx_dropped)
        if peer.path_mtu is not None:
            mtu.add_metric((peer.public_ip,), peer.path_mtu)
    yield from (packets, size, dropped, mtu)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))
