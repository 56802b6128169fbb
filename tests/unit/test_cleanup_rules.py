"""By which rules `cleanup` knows what an overlay has left, and what is in use."""

from ipaddress import ip_address
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpbackend.commands import cleanup
from udpbackend.commands.cleanup_files import unfinished_name
from udpbackend.commands.cleanup_lease import not_ours
from udpbackend.host.leftovers_devices import Device, bridge, overlay_devices, stray_addresses
from udpbackend.host.leftovers_item import Leftover
from udpbackend.host.leftovers_rules import is_flannels
from udpbackend.host.leftovers_users import FIRST_PIDS, in_the_dark, overlay_name, overlays
from udpbackend.host.mark import ALIAS
from udpbackend.model import Prefix

SUBNET, SUBNET6 = Prefix.parse("10.5.3.0/24"), Prefix.parse("fd00:5:0:3::/64")
NETWORKS = [Prefix.parse("10.5.0.0/16"), Prefix.parse("fd00:5::/48")]


@pytest.mark.parametrize(
    ("comm", "line", "name"),
    [
        ("flanneld", "/opt/bin/flanneld --ip-masq", "flanneld"),
        ("flanneld-amd64", "./flanneld-amd64", "flanneld-amd64"),
        ("k3s-server", "/usr/local/bin/k3s server", "k3s-server"),
        ("udp-backend", "/usr/bin/python3 /usr/bin/udp-backend", "udp-backend"),
        ("udp-backend", "/usr/bin/python3 /usr/bin/udp-backend --iface=eth0 -v 4", "udp-backend"),
        ("python3.11", "/usr/bin/python3.11 -m udpbackend --iface=eth0", "udp-backend"),
        ("python3", "python3 -I /opt/bin/udp-backend -v=1", "udp-backend"),
        ("udp-backend", "/usr/bin/python3 /usr/bin/udp-backend cleanup --dry-run", None),
        ("udp-backend", "/usr/bin/python3 /usr/bin/udp-backend status -w", None),
        ("python3", "python3 -m udpbackend doctor", None),
        ("vim", "vim udp-backend", None),
        ("grep", "grep flanneld", None),
        ("kthreadd", "", None),
        ("sh", "sh flanneld", None),
    ],
)
def test_programs_that_are_overlays(comm, line, name):
    assert overlay_name(comm, line.split(" ")) == name


@given(st.text(), st.lists(st.text(), min_size=1))
def test_any_command_line_is_read(comm, words):
    assert overlay_name(comm, words) in {None, comm, "udp-backend"}


@pytest.fixture
def proc(tmp_path):
    """A /proc whose namespaces are links to files; `add` puts a process there."""

    def add(pid, comm, line="", *, net="here", pids=None):
        folder = tmp_path / str(pid)
        (folder / "ns").mkdir(parents=True)
        (folder / "comm").write_text(comm + "\n")
        (folder / "cmdline").write_text(line.replace(" ", "\0") + "\0")
        (tmp_path / net).touch()
        (folder / "ns/net").symlink_to(tmp_path / net)
        if pids:
            (folder / "ns/pid").symlink_to(pids)

    tmp_path.joinpath("version").touch()
    return SimpleNamespace(path=tmp_path, add=add)


def test_only_overlays_of_this_network_namespace_count_ours_first(proc):
    proc.add("self", "cleanup")
    proc.add(7, "flanneld", "flanneld")
    proc.add(8, "flanneld", "flanneld", net="elsewhere")
    proc.add(9, "udp-backend", "python3 /bin/udp-backend -v=1")
    proc.add(10, "bash", "-bash")
    proc.add(11, "flanneld", "")
    proc.path.joinpath("11/ns/net").unlink()  # a zombie
    assert list(map(str, overlays(proc.path))) == ["udp-backend (process 9)", "flanneld (process 7)"]


def test_a_namespace_that_may_not_be_seen_counts_as_this_one(proc):
    proc.add("self", "cleanup")
    proc.add(7, "flanneld")
    link = proc.path / "7/ns/net"
    link.unlink()
    link.symlink_to(link)  # any error but that the process has ended
    assert [program.pid for program in overlays(proc.path)] == [7]


@pytest.mark.parametrize(
    ("pids", "first", "net", "words"),
    [
        (FIRST_PIDS, "bash", "here", ""),
        ("pid:[4026532999]", "systemd", "here", ""),
        ("pid:[4026532999]", "bash", "elsewhere", ""),
        ("pid:[4026532999]", "bash", "here", "perhaps in use: this container does not see the host's processes"),
    ],
)
def test_a_container_may_not_see_who_runs(proc, pids, first, net, words):
    proc.add("self", "cleanup", pids=pids)
    proc.add(1, first, net=net)
    assert in_the_dark(proc.path) == words


def test_what_cannot_be_seen_at_all_is_the_dark(tmp_path):
    assert in_the_dark(tmp_path).startswith("perhaps in use: who runs here cannot be seen: ")


def device(name, kind, **more):
    held = tuple(map(ip_address, more.pop("addresses", ())))
    return Device(name, more.pop("index", 7), kind, addresses=held, **more)


@pytest.mark.parametrize(
    ("found", "alone"),
    [
        (device("flannel0", "tun", alias=ALIAS), ""),
        (device("flannel0", "tun", alias=ALIAS, queues=2), "in use: a program holds 2 queue(s) of it"),
        (device("flannel0", "tun"), "made by another program: its alias is ''"),
        (device("flannel0", "bridge"), "no overlay makes a bridge device of this name"),
        (device("flannel.1", "vxlan"), ""),
        (device("flannel-v6.4096", "vxlan", alias=ALIAS), ""),
        (device("overlay", "vxlan", alias=ALIAS), None),
        (device("flannel-wg", "wireguard", alias=ALIAS), ""),
        (device("flannel5", "dummy", alias=ALIAS), ""),
        (device("flannel.1", "vxlan", bridge=3), "in use: it is a port of another device"),
        (device("flannel.x", "vxlan"), "no overlay makes a vxlan device of this name"),
        (device("flannel-wg", "wireguard"), ""),
        (device("flannel.ipip", "ipip"), ""),
        (device("flannel.ipip", "vxlan"), "no overlay makes a vxlan device of this name"),
        (device("flannel7", ""), "no overlay makes a hardware device of this name"),
        (device("tunl0", "ipip"), None),
        (device("vxlan1", "vxlan"), None),
        (device("eth0", "bridge", alias=ALIAS), None),
    ],
)
def test_devices(found, alone):
    shown = [it.alone for it in overlay_devices(None, [found])]
    assert len(shown) == (alone is not None)
    assert all(it.startswith(alone) and bool(it) == bool(alone) for it in shown)


@pytest.mark.parametrize(
    ("addresses", "subnets", "astray"),
    [
        (["10.5.3.1"], [SUBNET], []),
        (["10.5.3.1", "10.5.4.1"], [SUBNET], ["10.5.4.1"]),
        (["10.5.3.1", "fd00:7::1", "fe80::1"], [SUBNET], []),
        (["10.5.3.1", "fd00:7::1", "fe80::1"], [SUBNET, SUBNET6], ["fd00:7::1"]),
        (["10.5.3.1", "fd00:7::1", "fe80::1"], [], ["10.5.3.1", "fd00:7::1"]),
        ([], [], []),
    ],
)
def test_stray_addresses(addresses, subnets, astray):
    found = stray_addresses(device("cni0", "bridge", addresses=addresses), subnets)
    assert list(map(str, found)) == astray


def test_a_cni0_that_is_no_bridge():
    [found] = bridge(None, [device("cni0", "dummy", addresses=["10.9.0.1"])], [SUBNET])
    assert found.alone == "it is a dummy device, expected a bridge"
    assert list(bridge(None, [device("cni1", "bridge", addresses=["10.9.0.1"])], [SUBNET])) == []


@pytest.mark.parametrize(
    ("destination", "like"),
    [
        ("10.5.4.0/24", True),
        ("10.5.3.0/24", False),
        ("10.5.0.0/16", False),
        ("10.5.4.0/25", False),
        ("10.6.4.0/24", False),
        ("0.0.0.0/0", False),
        ("fd00:5:0:4::/64", True),
        ("fd00:6:0:4::/64", False),
    ],
)
def test_routes_as_flannels_host_gw_makes_them(destination, like):
    assert is_flannels(Prefix.parse(destination), NETWORKS, [SUBNET, SUBNET6]) is like


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (".subnet.env.a1b2c3d_", True),
        (".subnet.env1234567890", True),
        (".subnet.env", False),
        (".subnet.env.bak", False),
        ("subnet.env.a1b2c3d_", False),
        (".subnetXenv.a1b2c3d_", False),
    ],
)
def test_unfinished_subnet_files(name, is_one):
    assert unfinished_name(name, "subnet.env") is is_one


@pytest.mark.parametrize(
    ("public_ip", "lease", "words"),
    [
        ("192.0.2.1", 5, ""),
        ("192.0.2.1", 0, "it is a reservation, made by an administrator"),
        ("192.0.2.2", 5, "it may be another node's: this host does not have its PublicIP"),
    ],
)
def test_whose_lease_it_is(public_ip, lease, words):
    held = SimpleNamespace(lease=SimpleNamespace(public_ip=int(ip_address(public_ip))), kv=SimpleNamespace(lease=lease))
    assert not_ours(held, [ip_address("192.0.2.1"), ip_address("10.5.3.0")]) == words


@pytest.mark.parametrize(
    ("env", "networks"),
    [
        ({}, []),
        ({"FLANNEL_NETWORK": "10.5.0.0/16,10.9.3.4/16", "FLANNEL_IPV6_NETWORK": "fd00:5::/48"}, 3),
        ({"FLANNEL_NETWORK": "nonsense,10.5.0.0/16"}, 1),
    ],
)
def test_networks_of_a_subnet_file(env, networks):
    assert len(cleanup.networks_of(env)) == (networks or 0)


async def nothing():
    """What removes nothing."""


def test_a_claim_concerns_only_what_can_be_shared_and_keeps_a_better_reason():
    shared, ours, left = (
        Leftover(("a",), "", nothing),
        Leftover(("b",), "", nothing, shared=False),
        Leftover(("c",), "", nothing, alone="in use"),
    )
    claimed = [cleanup._claimed(it, "flanneld runs").action for it in (shared, ours, left)]
    assert claimed == ["left alone: flanneld runs", "remove", "left alone: in use"]
    assert cleanup._claimed(shared, "") == shared


def test_the_variables_of_the_daemon_are_read(monkeypatch):
    seen = []
    monkeypatch.setattr(cleanup, "_clean", lambda told, *, dry_run: seen.append((told, dry_run)) or done())
    monkeypatch.setenv("FLANNELD_SUBNET_FILE", "/run/a/b.env")
    monkeypatch.setenv("FLANNELD_ETCD_PREFIX", "/x")
    assert cleanup.run(["-dry-run", "-status-socket=/s"]) == 0
    [(told, dry_run)] = seen
    assert dry_run
    assert {field: item.texts[0] for field, item in told.items()} == {
        "subnet_file": "/run/a/b.env",
        "status_socket": "/s",
        "etcd_prefix": "/x",
    }


async def done():
    return 0
