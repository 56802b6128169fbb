"""The text of `status`: what an operator reads, in the order they read it."""

import io

import pytest
from observed import facts, ipv6_facts, kernel, peer, values, vxlan_facts

from udpbackend.commands.status_text import PEERS_SHOWN, render
from udpbackend.commands.table import Palette, binary, decimal, table
from udpbackend.dataplane.native import LastError, counter_infos
from udpbackend.observe.build import build

PLAIN = Palette(on=False)
INFOS = {info.name: info for info in counter_infos()}


def text(*, wide=False, palette=PLAIN, **changes):
    return render(build(facts(**changes)), wide=wide, palette=palette)


def row(lines, header):
    """The cells of the first row under a header, by column name."""
    at = next(i for i, line in enumerate(lines) if line.startswith(header))
    columns = lines[at].split()
    starts = [lines[at].index(column) for column in columns] + [None]
    return {c: lines[at + 1][starts[i] : starts[i + 1]].strip() for i, c in enumerate(columns)}


def test_the_whole_text():
    policy = INFOS["tx_drop_no_route"]
    stranger = INFOS["rx_drop_unknown_peer"]
    assert (
        "\n".join(text()).split("dropped by the kernel:")[0]
        == f"""\
ready, 1 of 2 peers seen, registry view 3 s old

NODE   NETWORK      SUBNET       BACKEND  PORT  REGISTRY  VIEW-AGE  ROUTES  AGE
alpha  10.5.0.0/16  10.5.1.0/24  udp      8285  static    3s        4       1h2m

INTERFACE  ADDRESS    PUBLIC-IP  MTU   OVERLAY   OVERLAY-ADDRESS  OVERLAY-MTU  OFFLOADS
eth0       192.0.2.1  192.0.2.1  1500  flannel0  10.5.1.0         1472         csum

PEER   PUBLIC-IP  SUBNETS                  TX-PACKETS  RX-PACKETS  PATH-MTU  LAST-SEEN  STATE
beta   192.0.2.2  10.5.2.0/24,10.5.4.0/24  7           5           1400      1m2s       seen
gamma  192.0.2.3  10.5.3.0/24              7           5           <none>    <none>     silent

DIRECTION  PACKETS  BYTES   PACKETS/S  BITS/S
tx         118      2.9MiB  10         12.3 Mb/s
rx         49       2.0KiB  0          0 b/s

tx: received 120 = delivered 118 + dropped 2 + in flight 0, unexplained 0
rx: received 50 = delivered 49 + dropped 1 + in flight 0, unexplained 0

dropped or refused by udp-backend:
  tx_drop_no_route  2  {policy.meaning}
    cure: {policy.cure}
  rx_drop_unknown_peer  1  {stranger.meaning}
    cure: {stranger.cure}

"""
    )


def test_ipv6_stands_behind_ipv4():
    lines = render(build(ipv6_facts()), wide=False, palette=PLAIN)
    node, interface, beta = (row(lines, header) for header in ("NODE", "INTERFACE", "PEER"))
    assert (node["NETWORK"], node["SUBNET"]) == ("10.5.0.0/16,fd00:5::/48", "10.5.1.0/24,fd00:5:0:1::/64")
    assert interface["OVERLAY-ADDRESS"] == "10.5.1.0,fd00:5:0:1::"
    assert beta["SUBNETS"] == "10.5.2.0/24,fd00:5:0:2::/64"


def test_what_the_kernel_moves_is_not_counted_and_strangers_are_named():
    assert (
        "\n".join(render(build(vxlan_facts()), wide=False, palette=PLAIN))
        == """\
ready, 1 peer, 1 node of another backend ignored, registry view 3 s old

NODE   NETWORK      SUBNET       BACKEND  PORT  REGISTRY  VIEW-AGE  ROUTES  AGE
alpha  10.5.0.0/16  10.5.1.0/24  vxlan    8472  static    3s        1       1h2m

INTERFACE  ADDRESS    PUBLIC-IP  MTU   OVERLAY                 OVERLAY-ADDRESS        OVERLAY-MTU  OFFLOADS
eth0       192.0.2.1  192.0.2.1  1500  flannel.1,flannel-v6.1  10.5.1.0,fd00:5:0:1::  1450         <none>

PEER  PUBLIC-IP  SUBNETS
beta  192.0.2.2  10.5.2.0/24

IGNORED  PUBLIC-IP  BACKEND  SUBNETS
gamma    192.0.2.3  host-gw  10.5.3.0/24,fd00:5:0:3::/64"""
    )


def test_kernel_drops_are_shown_when_there_are_any():
    lines = text()
    at = lines.index("dropped by the kernel:")
    assert lines[at + 1].startswith("  socket_rx_dropped  9  datagrams")
    assert lines[at + 2].startswith("    cure: ")
    assert "dropped by the kernel:" not in text(kernel=kernel(socket_rx_dropped=0))


@pytest.mark.parametrize("info", [info for info in counter_infos() if info.kind == "dropped" or info.cure])
def test_every_loss_is_shown_with_its_cure(info):
    lines = text(counters=values({info.name: 3}))
    assert f"  {info.name}  3  {info.meaning}" in lines
    assert f"    cure: {info.cure}" in lines


def test_nothing_lost_shows_no_losses():
    lines = text(counters=values({"tx_received": 1, "tx_delivered": 1, "tx_icmp_too_big": 1}), kernel={})
    assert lines[-1].startswith("rx: received 0")


def test_what_is_unexplained_stands_out():
    lines = text(counters=values({"rx_received": 3}), palette=Palette(on=True))
    assert "rx: received 3 = delivered 0 + dropped 0 + in flight 0, \x1b[31munexplained 3\x1b[0m" in lines


def test_wide_adds_columns():
    lines = text(wide=True)
    assert row(lines, "NODE")["SOURCE-CHECK"] == "subnet"
    assert row(lines, "NODE")["VERSION"] == "1.2.3"
    assert row(lines, "PEER")["TX-BYTES"] == "700B"
    assert row(lines, "PEER")["PATH-MTU-LEFT"] == "10m0s"


def test_many_peers_are_cut_and_those_never_seen_come_first():
    peers = [peer(f"192.0.2.{i}") for i in range(1, 40)] + [peer("192.0.2.99", silent_s=None)]
    lines = text(peers=peers, leases=())
    assert row(lines, "PEER")["PUBLIC-IP"] == "192.0.2.99"
    assert f"... and {40 - PEERS_SHOWN} more, -o wide shows all" in lines
    wide = text(peers=peers, leases=(), wide=True)
    assert row(wide, "PEER")["PUBLIC-IP"] == "192.0.2.1"
    assert not any("more" in line for line in wide if line.startswith("..."))


def test_a_start_has_no_values_yet():
    lines = text(waiting_for="a lease", network=None, endpoint=None, overlay=None, peers=(), leases=(), offloads=())
    assert lines[0] == "starting, waiting for a lease"
    assert row(lines, "NODE")["SUBNET"] == "<none>"
    assert row(lines, "INTERFACE")["ADDRESS"] == "<none>"
    assert "no peers" in lines


def test_the_last_error_is_shown():
    last = LastError("Network is unreachable", "tx_drop_send_error", 75)
    assert text(last_error=last)[-1] == "last error: Network is unreachable (tx_drop_send_error, 1m15s ago)"


def test_a_name_from_the_registry_cannot_steer_the_terminal():
    last = LastError("\x1b[A", "x", 0)
    assert "\x1b" not in "\n".join(text(node="\x1b[2Jevil", problems=("\x1b]0;x\x07",), last_error=last))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("when", "out", "environ", "on"),
    [
        ("auto", Terminal(), {}, True),
        ("auto", io.StringIO(), {}, False),
        ("auto", Terminal(), {"NO_COLOR": "1"}, False),
        ("auto", Terminal(), {"NO_COLOR": ""}, True),
        ("auto", Terminal(), {"TERM": "dumb"}, False),
        ("always", io.StringIO(), {"NO_COLOR": "1"}, True),
        ("never", Terminal(), {}, False),
    ],
)
def test_colour_is_for_terminals(monkeypatch, when, out, environ, on):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert Palette.choose(when, out).on is on


@pytest.mark.parametrize(("state", "code"), [({}, 32), ({"problems": ("x",)}, 31), ({"waiting_for": "x"}, 33)])
def test_the_verdict_has_the_colour_of_its_state(state, code):
    assert text(palette=Palette(on=True), **state)[0].startswith(f"\x1b[{code}m")


def test_columns_stand_two_blanks_apart():
    assert table(["A", "LONGER"], [["wide cell", None], ["", 1]]) == [
        "A          LONGER",
        "wide cell  <none>",
        "<none>     1",
    ]


def test_quantities():
    assert [binary(n) for n in (0, 1023, 1024, 3 << 30, 5000 << 40)] == ["0B", "1023B", "1.0KiB", "3.0GiB", "5000.0TiB"]
    assert [decimal(n, "b/s") for n in (0, 999, 12.3e6, 9.41e9)] == ["0 b/s", "999 b/s", "12.3 Mb/s", "9.4 Gb/s"]
