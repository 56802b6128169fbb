"""The exposition: what a scraper parses, what every metric is called and said to be."""

import re
from dataclasses import replace

import pytest
from observed import Peers, facts, ipv6_facts, lease, peer, values, vxlan_facts
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from udpbackend.dataplane.native import counter_infos
from udpbackend.observe.facts import RegistryView
from udpbackend.observe.metrics import PEERS_MAX, Metrics


def scrape(metrics=None, **changes):
    return parsed((metrics or Metrics()).render(facts(**changes)))


def parsed(text):
    text = text.decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(families, family, **labels):
    found = [s.value for s in families[family].samples if labels.items() <= s.labels.items()]
    assert len(found) == 1, found
    return found[0]


def test_every_metric_has_help_and_type_once_and_our_prefix():
    text = Metrics().render(facts()).decode()
    helps = re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE)
    types = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert [name for name, _ in helps] == [name for name, _ in types]
    assert len(set(helps)) == len(dict(helps))
    assert all(name.startswith(("udpbackend_", "process_")) for name, _ in helps)
    assert all(name.endswith("_total") for name, kind in types if kind == "counter")


def test_every_drop_of_the_dataplane_is_a_reason_with_its_meaning_and_cure():
    numbers = {info.name: i for i, info in enumerate(counter_infos())}
    families = scrape(counters=list(numbers.values()))
    drops = [info for info in counter_infos() if info.kind == "dropped"]
    assert len(families["udpbackend_dropped_packets"].samples) == len(drops)
    for info in drops:
        labels = {"direction": info.direction, "reason": info.name.removeprefix(f"{info.direction}_drop_")}
        assert value(families, "udpbackend_dropped_packets", **labels) == numbers[info.name]
        labels |= {"meaning": info.meaning, "cure": info.cure}
        assert value(families, "udpbackend_drop_reason_info", **labels) == 1


def test_every_other_counter_has_its_meaning_as_help():
    names = {"received": "{}_received_packets", "delivered": "{}_packets"}
    families = scrape()
    for info, count in zip(counter_infos(), values({"tx_received": 120}), strict=True):
        if info.kind == "dropped":
            continue
        family = families["udpbackend_" + names.get(info.kind, info.name).format(info.direction)]
        assert family.type == "counter"
        assert info.meaning in family.documentation
        assert info.cure in family.documentation
        assert count in (0, value(families, family.name))


def test_the_names_an_operator_looks_for():
    families = scrape(in_flight=0)
    assert value(families, "udpbackend_tx_packets") == 118
    assert value(families, "udpbackend_rx_bytes") == 2048
    assert value(families, "udpbackend_peers", state="seen") == 1
    assert value(families, "udpbackend_peers", state="silent") == 1
    assert value(families, "udpbackend_registry_last_sync_timestamp_seconds") == 1767326400
    assert value(families, "udpbackend_routes") == 4
    assert value(families, "udpbackend_ready") == 1
    assert value(families, "udpbackend_degraded") == 0
    assert value(families, "udpbackend_loop_lag_seconds") == pytest.approx(0.0021)
    assert value(families, "udpbackend_in_flight_packets") == 0
    assert value(families, "udpbackend_unexplained_packets", direction="tx") == 0
    assert value(families, "udpbackend_kernel_dropped_packets", place="socket_rx") == 9
    assert value(families, "udpbackend_build_info", version="1.2.3") == 1
    assert value(families, "udpbackend_info", node="alpha", backend="udp", subnet="10.5.1.0/24") == 1
    assert value(families, "udpbackend_peer_packets", peer="192.0.2.2", direction="tx") == 7
    assert value(families, "udpbackend_peer_path_mtu_bytes") == 1400
    assert "process_resident_memory_bytes" in families


def test_the_rule_of_the_operations_page_finds_every_counter():
    """A counter's name makes its metric's, so that nobody needs a second table."""
    families = scrape(counters=list(range(len(counter_infos()))))
    for number, info in enumerate(counter_infos()):
        name, labels = f"udpbackend_{info.name}", {}
        if info.kind == "dropped":
            direction, reason = info.name.split("_drop_")
            name, labels = "udpbackend_dropped_packets", {"direction": direction, "reason": reason}
        elif info.kind in ("received", "delivered"):
            direction = info.name.removesuffix(f"_{info.kind}")
            name = f"udpbackend_{direction}_{'received_' * (info.kind == 'received')}packets"
        assert value(families, name, **labels) == number


def test_ipv6_is_told_only_where_there_is_some():
    families = {
        family.name: family for family in text_string_to_metric_families(Metrics().render(ipv6_facts()).decode())
    }
    assert value(families, "udpbackend_info", ipv6_network="fd00:5::/48", ipv6_subnet="fd00:5:0:1::/64") == 1
    assert b"ipv6" not in Metrics().render(facts())


def test_what_does_not_balance_is_shown():
    assert value(scrape(in_flight=1), "udpbackend_unexplained_packets", direction="tx") == -1


def test_a_start_is_not_ready_and_has_no_sync_time():
    families = scrape(waiting_for="a lease", registry=RegistryView(kind="static", source="x"), network=None)
    assert value(families, "udpbackend_ready") == 0
    assert "udpbackend_registry_last_sync_timestamp_seconds" not in families


def test_publish_times_are_a_histogram():
    metrics = Metrics()
    metrics.observe_publish(0.003)
    families = scrape(metrics)
    assert value(families, "udpbackend_route_publish_seconds", le="0.0025") == 0
    assert value(families, "udpbackend_route_publish_seconds", le="0.005") == 1
    assert "udpbackend_route_publish_seconds_created" not in families


@pytest.mark.parametrize(("count", "shown"), [(PEERS_MAX, True), (PEERS_MAX + 1, False)])
def test_many_peers_have_no_series_of_their_own(count, shown):
    families = scrape(leases=(), peers=[peer(f"192.0.{i // 250}.{i % 250 + 1}") for i in range(count)])
    assert value(families, "udpbackend_peers", state="seen") == count
    assert ("udpbackend_peer_packets" in families) is shown


def test_thousands_of_peers_are_not_looked_at_one_by_one():
    class Rows(Peers):
        def __iter__(self):
            raise AssertionError("a scrape every few seconds is to cost what it shows")

        __getitem__ = __iter__
        unanswered = (4,)
        addresses = range(PEERS_MAX + 1)

    found = replace(facts(leases=(), seen=7), peers=Rows([peer("192.0.2.2")] * (PEERS_MAX + 1)))
    families = parsed(Metrics().render(found))
    assert value(families, "udpbackend_peers", state="seen") == 7
    assert value(families, "udpbackend_peers", state="unanswered") == 1
    assert value(families, "udpbackend_peers", state="silent") == PEERS_MAX - 7


class Leases(list):
    """Counts how often somebody goes through them."""

    gone_through = 0

    def __iter__(self):
        self.gone_through += 1
        return super().__iter__()


@pytest.mark.parametrize(("made", "passes"), [(vxlan_facts, 2), (facts, 1)])
def test_leases_are_gone_through_for_a_snapshot_and_not_for_each_scrape(made, passes):
    """With 65,536 of them each time is felt; only where the kernel has the table are they counted as well."""
    kind, address = made().network.backend.type, [f"192.0.{i // 250}.{i % 250 + 1}" for i in range(PEERS_MAX + 2)]
    leases = Leases(lease(f"10.{5 + i // 250}.{i % 250}.0/24", it, backend_type=kind) for i, it in enumerate(address))
    leases.append(lease("10.9.0.0/24", "192.0.9.9", backend_type="host-gw"))
    found = made(leases=leases, **({"peers": [peer(it) for it in address]} if made is facts else {}))
    for uptime_s in range(3):
        families = parsed(Metrics().render(replace(found, uptime_s=uptime_s)))
        assert sum(it.value for it in families["udpbackend_peers"].samples) >= PEERS_MAX + 1
    assert leases.gone_through == passes


def test_two_daemons_in_one_process_share_nothing_and_the_global_registry_stays_empty_of_us():
    first, second = Metrics(), Metrics()
    first.observe_publish(1)
    samples = scrape(second)["udpbackend_route_publish_seconds"].samples
    assert [s.value for s in samples if s.name.endswith("_count")] == [0]
    assert not any(family.name.startswith("udpbackend") for family in REGISTRY.collect())
