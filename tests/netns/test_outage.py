"""What others do to a running host's links: followed, put back or reported, and never a busy loop."""

import pytest
from probe import probing
from running import Log, becomes, counter, cpu_s, cpu_share, held

from bench.lab.wait import until

BACK_S = 5.0
"""A few seconds: what may pass on a busy machine until traffic flows again."""
NEXT_TRY_S = 5.0
"""The longest it waits before it looks again whether a stranger's flannel0 has gone."""
TOLD_S = 5.0
BUSY = 0.25
"""Less than this share of a processor is no busy loop, with traffic and a question now and then."""


@pytest.fixture(params=[(), ("--workers=2",)], ids=["loop", "workers"])
def overlay(make_overlay, request):
    """With the queue on the event loop, and with queues on threads."""
    return make_overlay(arguments=request.param)


@pytest.fixture
def probe(overlay):
    """Traffic from pod to pod all the while."""
    a, b = overlay.lab.hosts
    with probing(a.pod, b.pod, b.pod_address) as running:
        yield running


def routes(host):
    return host.namespace.run("ip", "route", "show", "dev", "flannel0").split("\n")[:-1]


def test_a_deleted_device_is_made_again(overlay, probe):
    for host in overlay.lab.hosts:  # first the sender's, then the receiver's
        log, used = Log(overlay.process(host)), cpu_s(overlay.process(host))
        host.namespace.ip("link delete flannel0")
        probe.flows(BACK_S)
        log.shows("flannel0 is back", TOLD_S)
        assert cpu_s(overlay.process(host)) - used < 1
        assert host.namespace.run("ip", "-br", "addr", "show", "flannel0").split()[2] == f"10.5.{host.number}.0/32"
        assert [route.split()[0] for route in routes(host)] == ["10.5.0.0/16"]
        becomes(overlay, host, "ready", TOLD_S)
    probe.stop()
    for host in overlay.lab.hosts:
        overlay.settle(host)


def test_a_device_deleted_again_and_again(overlay, probe):
    """It is made again once a second at most, and the last one stays."""
    a, _ = overlay.lab.hosts
    for _ in range(3):
        log = Log(overlay.process(a))
        a.namespace.ip("link delete flannel0")
        log.shows("flannel0 is back", BACK_S)
    probe.flows(BACK_S)


def test_a_device_set_down_stays_down_until_it_is_set_up(overlay, probe):
    a, _ = overlay.lab.hosts
    a.namespace.ip("link set flannel0 down")
    text = becomes(overlay, a, "degraded", TOLD_S, "flannel0 is down")
    assert "ip link set flannel0 up brings it back" in text
    assert cpu_share(overlay.process(a), 1) < BUSY
    assert "state DOWN" in a.namespace.run("ip", "link", "show", "flannel0")
    assert routes(a) == []
    a.namespace.ip("link set flannel0 up")
    probe.flows(BACK_S)
    assert [route.split()[0] for route in routes(a)] == ["10.5.0.0/16"]
    becomes(overlay, a, "ready", TOLD_S)


def test_packets_for_a_device_that_is_down_are_counted(overlay, probe):
    _, b = overlay.lab.hosts
    b.namespace.ip("link set flannel0 down")
    before = counter(overlay, b, "rx_drop_tun_down")
    until(lambda: counter(overlay, b, "rx_drop_tun_down") > before, TOLD_S, "nothing is counted")
    assert cpu_share(overlay.process(b), 1) < BUSY
    b.namespace.ip("link set flannel0 up")
    probe.flows(BACK_S)


@pytest.mark.parametrize(
    ("damage", "mended"),
    [
        ("address delete 10.5.1.0/32 dev flannel0", "flannel0 lacks its address 10.5.1.0/32"),
        ("route delete 10.5.0.0/16 dev flannel0", "the route 10.5.0.0/16 dev flannel0 is missing"),
        ("link set flannel0 mtu 1300", "flannel0 has the MTU 1300 instead of 1472"),
        ("link set flannel0 alias other", "flannel0 does not have our alias"),
    ],
    ids=["address", "route", "mtu", "alias"],
)
def test_what_was_taken_away_is_put_back(overlay, probe, damage, mended):
    a, _ = overlay.lab.hosts
    log = Log(overlay.process(a))
    a.namespace.ip(damage)
    log.shows(f"repaired flannel0: {mended}", BACK_S)
    probe.flows(BACK_S)
    becomes(overlay, a, "ready", TOLD_S)


@pytest.mark.parametrize(
    ("away", "back"),
    [
        ("link set eth0 down", "link set eth0 up"),
        ("address delete 192.168.77.1/24 dev eth0", "address add 192.168.77.1/24 dev eth0"),
    ],
    ids=["link", "address"],
)
def test_the_underlay_goes_away_and_comes_back(overlay, probe, away, back):
    a, _ = overlay.lab.hosts
    log, before = Log(overlay.process(a)), counter(overlay, a, "tx_drop_unreachable")
    a.namespace.ip(away)
    until(lambda: counter(overlay, a, "tx_drop_unreachable") > before, TOLD_S, "no drop has its cause")
    assert cpu_share(overlay.process(a), 1) < BUSY
    a.namespace.ip(back)
    probe.flows(BACK_S)
    log.shows("interface eth0 is back", TOLD_S)
    assert [line[0] for line in log.lines("interface eth0")] == ["W", "I"]
    probe.stop()
    overlay.settle(a)


def test_a_strangers_device_in_its_place_is_left_alone(overlay, probe):
    a, _ = overlay.lab.hosts
    log = Log(overlay.process(a))
    with held(overlay.process(a)):  # or its own is back before the stranger's is made
        a.namespace.ip("link delete flannel0", "tuntap add flannel0 mode tun", "link set flannel0 up mtu 1400")
    becomes(overlay, a, "degraded", TOLD_S, "flannel0 was made by another program: its alias is ''")
    log.shows("cannot open flannel0 again, trying on: flannel0 was made by another program", TOLD_S)
    assert cpu_share(overlay.process(a), 2) < BUSY
    assert len(log.lines("cannot open flannel0 again")) == 1
    link, address = (a.namespace.run("ip", "-o", what, "show", "flannel0") for what in ("link", "address"))
    assert "mtu 1400" in link
    assert "alias" not in link
    assert "10.5.1.0" not in address
    a.namespace.ip("link delete flannel0")
    probe.flows(NEXT_TRY_S + BACK_S)
    becomes(overlay, a, "ready", TOLD_S)


def test_it_can_be_stopped_while_its_device_is_gone(overlay, probe):
    a, _ = overlay.lab.hosts
    with held(overlay.process(a)):
        a.namespace.ip("link delete flannel0", "tuntap add flannel0 mode tun")
    becomes(overlay, a, "degraded", TOLD_S)
    overlay.stop(a, 1.5)
