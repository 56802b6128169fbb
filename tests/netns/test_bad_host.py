"""A host that lacks or refuses something: a start that ends at once, with one line that names what is in the way."""

import json
import socket

import pytest
from refusal import refusal, with_mounts, without

from bench.lab.daemon import Overlay
from bench.lab.topology import Host, Lab


@pytest.fixture(scope="module")
def idle(able):
    """Two hosts without a daemon. No start leaves anything on them, which each refusal proves."""
    with Lab() as lab, Overlay(lab) as overlay:
        yield overlay


@pytest.fixture
def host(idle) -> Host:
    return idle.lab.hosts[0]


def listening(kind, *address):
    made = socket.socket(socket.AF_INET, kind)
    made.bind(address)
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


def test_no_tun_device(idle, host):
    said = refusal(idle, host, *with_mounts("mount -t tmpfs none /dev/net"))
    assert "cannot open TUN devices: /dev/net/tun is missing" in said
    assert "modprobe tun" in said


def test_a_tun_device_that_may_not_be_opened(idle, host):
    script = "mount -t tmpfs none /dev/net; mknod -m 0 /dev/net/tun c 10 200"
    said = refusal(idle, host, *with_mounts(script), *without("dac_override"))
    assert "cannot open TUN devices: not permitted" in said
    assert "/dev/net/tun" in said


def test_no_network_capability(idle, host):
    said = refusal(idle, host, *without("net_admin"))
    assert "cannot open TUN devices: not permitted: the capability NET_ADMIN" in said


def test_the_port_is_taken(idle, host):
    with host.namespace.call(lambda: listening(socket.SOCK_DGRAM, host.address, 8285)):
        said = refusal(idle, host)
    assert said == f"failed to start listening on UDP socket: {host.address}:8285: Address already in use"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"iface": "eth9"}, ("error looking up interface eth9: no such network interface", "this host has", "cni0")),
        ({"iface": "192.0.2.99"}, ("error looking up interface 192.0.2.99: no interface with given IP found",)),
        ({"iface": "pod0"}, ("failed to find IPv4 address for interface pod0",)),
        ({"iface": None, "iface_regex": "^wlan"}, ("Could not match pattern ^wlan to any",)),
        ({"iface": None, "iface_can_reach": "203.0.113.1"}, ("route to 203.0.113.1: Network is unreachable",)),
        ({"iface": None, "public_ip": "192.0.2.99"}, ("error looking up interface 192.0.2.99",)),
        ({"iface": None}, ("unable to find default route", "this host has", "192.168.77.1")),
    ],
    ids=["name", "address", "no-address-on-it", "pattern", "reach", "public-ip", "no-default-route"],
)
def test_no_such_interface(idle, host, flags, words):
    said = refusal(idle, host, **flags)
    assert all(word in said for word in words), said


def test_a_directory_where_the_subnet_file_should_be(idle, host, tmp_path):
    (tmp_path / "subnet.env").mkdir()
    said = refusal(idle, host, subnet_file=tmp_path / "subnet.env")
    assert said.startswith(f"cannot write the subnet file {tmp_path}/subnet.env: it is a directory")
    assert [path.name for path in tmp_path.iterdir()] == ["subnet.env"]


def test_the_subnet_file_on_a_read_only_mount(idle, host, tmp_path):
    said = refusal(
        idle, host, *with_mounts(f"mount -t tmpfs -o ro none {tmp_path}"), subnet_file=tmp_path / "subnet.env"
    )
    assert said == f"cannot write the subnet file {tmp_path}/subnet.env: Read-only file system"


def test_a_file_where_the_run_directory_should_be(idle, host, tmp_path):
    (tmp_path / "run").write_text("")
    said = refusal(idle, host, subnet_file=tmp_path / "run" / "subnet.env")
    assert said == f"cannot write the subnet file {tmp_path}/run/subnet.env: Not a directory"


def test_a_file_where_the_status_socket_should_be(idle, host, tmp_path):
    (tmp_path / "status").write_text("precious")
    said = refusal(idle, host, status_socket=tmp_path / "status")
    assert said == f"cannot make the status socket {tmp_path}/status: a file that is no socket is there"
    assert (tmp_path / "status").read_text() == "precious"


def test_the_health_port_is_taken(idle, host):
    with host.namespace.call(lambda: listening(socket.SOCK_STREAM, "0.0.0.0", 8286)):
        said = refusal(idle, host, healthz_port=8286)
    assert said == "cannot listen on 0.0.0.0 port 8286 (--healthz-ip, --healthz-port): Address already in use"


def test_a_health_address_that_is_not_ours(idle, host):
    said = refusal(idle, host, healthz_ip="203.0.113.1", healthz_port=8286)
    assert "cannot listen on 203.0.113.1 port 8286" in said
    assert said.endswith("Cannot assign requested address")


@pytest.mark.parametrize(
    ("made_by", "words"),
    [
        ("tuntap add flannel0 mode tun", "flannel0 was made by another program: its alias is ''"),
        ("tuntap add flannel0 mode tap", "flannel0 was made by another program"),
        ("link add flannel0 type bridge", "flannel0 is a bridge device, expected a TUN made by udp-backend"),
    ],
    ids=["tun", "tap", "bridge"],
)
def test_a_device_of_another_program(idle, host, made_by, words):
    host.namespace.ip(made_by)
    try:
        said = refusal(idle, host)
    finally:
        host.namespace.ip("link delete flannel0")
    assert words in said
    assert "ip link delete flannel0" in said


@pytest.mark.parametrize(
    ("route", "called"),
    [
        ("10.5.0.0/16 dev cni0", "10.5.0.0/16 dev cni0"),
        ("blackhole 10.5.0.0/16", "10.5.0.0/16 to nowhere (blackhole, unreachable)"),
    ],
    ids=["device", "blackhole"],
)
def test_the_networks_route_is_taken(idle, host, route, called):
    host.namespace.ip(f"route add {route}")
    try:
        said = refusal(idle, host)
    finally:
        host.namespace.ip(f"route delete {route}")
    assert f"the route {called} is there already and flannel0 needs the same network" in said


def test_another_daemon_has_flannel0(make_overlay, tmp_path):
    """It shares neither port nor socket with the one that runs, so the device alone can tell."""
    overlay = make_overlay()
    registry = json.loads((overlay.lab.directory / "subnets.json").read_text())
    registry["Backend"]["Port"] = 9000
    other = tmp_path / "subnets.json"
    other.write_text(json.dumps(registry))
    said = refusal(overlay, overlay.lab.hosts[0], static_subnets=other, subnet_file=tmp_path / "subnet.env")
    assert said == "flannel0 is in use by another udp-backend: stop it first"


def test_a_living_daemon_answers_on_the_status_socket(make_overlay):
    """Two hosts with one run directory, as a mount shared by mistake makes them."""
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    overlay.launch(a)
    overlay.await_ready(a)
    said = refusal(overlay, b, subnet_file=overlay.run_directory(a) / "subnet.env")
    assert said.startswith(f"another udp-backend answers on {overlay.run_directory(a)}/subnet.sock")
    overlay.status(a)


def test_a_refused_start_leaves_what_an_earlier_one_has_left(make_overlay):
    """Device, routes and subnet file of the daemon before are what the pods live on."""
    overlay = make_overlay()
    a, _ = overlay.lab.hosts
    overlay.stop(a)
    with a.namespace.call(lambda: listening(socket.SOCK_DGRAM, a.address, 8285)):
        refusal(overlay, a)
    assert "dev flannel0" in a.namespace.run("ip", "route", "show", "10.5.0.0/16")
    assert (overlay.run_directory(a) / "subnet.env").exists()
