"""The command line and the environment: Go's syntax, flannel's names, and what is said about mistakes."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from udpbackend.dataplane import native
from udpbackend.errors import UsageError
from udpbackend.flags import FLAGS, IGNORED, Ask, parse, usage
from udpbackend.settings import Given, Settings
from udpbackend.texts import OFFLOADS, READERS

REGISTRY = ["--static-subnets=/etc/nodes.json"]


def refused(argv, environ=None):
    with pytest.raises(UsageError) as caught:
        parse(argv, environ or {})
    assert caught.value.status == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_flannels():
    assert parse(REGISTRY, {}) == Settings(
        iface=(),
        iface_regex=(),
        iface_can_reach=None,
        public_ip=None,
        subnet_file=Path("/run/flannel/subnet.env"),
        healthz_ip=IPv4Address("0.0.0.0"),
        healthz_port=0,
        verbosity=0,
        static_subnets=Path("/etc/nodes.json"),
        node_name=None,
        source_check=None,
        dataplane=None,
        status_socket=Path("/run/flannel/subnet.sock"),
    )


@pytest.mark.parametrize(
    "argv",
    [["-public-ip", "192.0.2.1"], ["--public-ip", "192.0.2.1"], ["--public-ip=192.0.2.1"], ["-public-ip=192.0.2.1"]],
)
def test_every_spelling_of_a_flag(argv):
    assert parse(REGISTRY + argv, {}).public_ip == IPv4Address("192.0.2.1")


def test_every_flag_fills_its_field():
    settings = parse(
        [
            *("-iface=eth0", "--iface", "192.0.2.1", "--iface-regex", "^en", "--iface-regex=-x$"),
            *("--iface-can-reach=192.0.2.9", "--subnet-file=/run/o/o.env", "--healthz-ip=::1", "--healthz-port=8081"),
            *("-v=2", "--static-subnets=n.json", "--node-name=alpha", "--source-check=peer", "--status-socket=/run/s"),
            "--dataplane=auto",
        ],
        {},
    )
    assert settings.iface == ("eth0", "192.0.2.1")
    assert settings.iface_regex == ("^en", "-x$")
    assert settings.iface_can_reach == IPv4Address("192.0.2.9")
    assert settings.subnet_file == Path("/run/o/o.env")
    assert (settings.healthz_ip, settings.healthz_port) == (IPv6Address("::1"), 8081)
    assert (settings.verbosity, settings.node_name, settings.source_check) == (2, "alpha", "peer")
    assert settings.dataplane == "auto"
    assert settings.status_socket == Path("/run/s")


@pytest.mark.parametrize(
    ("text", "off"),
    [
        ("udp-coalesce=on", set()),
        ("tso=off", {"tso", "udp-coalesce"}),
        ("udp-gro=off, udp-coalesce=on,udp-segment=off", {"udp-gro", "udp-segment"}),
        ("uso=off,uso=on", {"udp-coalesce"}),
    ],
)
def test_offloads_are_switched_one_by_one(text, off):
    assert parse(REGISTRY, {}).offloads_off == {"udp-coalesce"}
    assert parse([*REGISTRY, f"--offloads={text}"], {}).offloads_off == off
    assert parse(REGISTRY, {"FLANNELD_OFFLOADS": text}).offloads_off == off


@pytest.mark.parametrize("text", ["tso", "gro=off", "csum=off", "tso=no", "tso=off,", "tso=on=off"])
def test_a_bad_switch_is_refused_with_all_there_are(text):
    message = refused([*REGISTRY, f"--offloads={text}"])
    assert f"--offloads: invalid value {text!r}: expected offloads with on or off, like udp-coalesce=on" in message
    assert all(name in message for name in OFFLOADS)


def test_switches_are_named_as_status_names_offloads():
    assert set(OFFLOADS) | {"csum"} == set(native.OFFLOADS.values())


def test_go_takes_the_next_argument_whatever_it_looks_like():
    assert parse([*REGISTRY, "--iface-regex", "-v"], {}).iface_regex == ("-v",)


def test_the_last_of_a_repeated_flag_counts():
    assert parse([*REGISTRY, "-v", "1", "-v", "3"], {}).verbosity == 3


def test_an_empty_value_is_the_default():
    settings = parse([*REGISTRY, "--iface=", "--public-ip=", "--healthz-port=", "--subnet-file="], {})
    assert settings == parse(REGISTRY, {})


def test_the_status_socket_follows_the_subnet_file():
    assert parse([*REGISTRY, "--subnet-file=/run/two/net.env"], {}).status_socket == Path("/run/two/net.sock")
    assert "too long for a UNIX socket" in refused([*REGISTRY, f"--subnet-file=/{'x' * 110}.env"])


def test_the_environment_is_used_where_no_flag_is_given():
    environ = {
        "FLANNELD_IFACE": "eth0,eth1",  # a single value, as with flannel
        "FLANNELD_PUBLIC_IP": "192.0.2.1",
        "FLANNELD_V": "1",
        "FLANNELD_STATIC_SUBNETS": "nodes.json",
        "FLANNELD_NODE_NAME": "",
        "FLANNELD_SERVICE_HOST": "10.96.0.7",  # Kubernetes sets these for a service called flanneld
        "FLANNELD_PORT": "tcp://10.96.0.7:80",
    }
    settings = parse(["--public-ip=192.0.2.2"], environ)
    assert settings.iface == ("eth0,eth1",)
    assert settings.public_ip == IPv4Address("192.0.2.2")
    assert settings.verbosity == 1
    assert settings.static_subnets == Path("nodes.json")
    assert settings.node_name is None


def test_a_bad_variable_is_named():
    message = refused(REGISTRY, {"FLANNELD_HEALTHZ_PORT": "http"})
    assert message == "FLANNELD_HEALTHZ_PORT: invalid value 'http': expected a port number from 0 (off) to 65535"


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_klogs_other_flags_are_taken_without_effect(name):
    assert parse([*REGISTRY, f"--{name}=x", f"-{name}", "y"], {}) == parse(REGISTRY, {})


def test_the_flags_of_the_registries():
    settings = parse(
        [
            *("--etcd-endpoints=https://a.example:2379,https://[2001:db8::1]:4001", "-etcd-prefix", "/net/"),
            *("--etcd-cafile=ca.pem", "--etcd-certfile=c.pem", "--etcd-keyfile=k.pem"),
            *("--etcd-username=u", "--etcd-password=p", "--subnet-lease-renew-margin=30"),
        ],
        {},
    )
    assert settings.etcd_endpoints == ("https://a.example:2379", "https://[2001:db8::1]:4001")
    assert settings.etcd_prefix == "/net"
    assert parse(["--etcd-endpoints=a:2379,[::1]:4001"], {}).etcd_endpoints == ("a:2379", "[::1]:4001")
    assert parse(["--etcd-prefix=a//net/"], {}).etcd_prefix == "a/net"
    assert (settings.etcd_cafile, settings.etcd_keyfile) == (Path("ca.pem"), Path("k.pem"))
    assert (settings.etcd_username, settings.etcd_password) == ("u", "p")
    assert settings.subnet_lease_renew_margin == 30
    assert parse([], {}).etcd_endpoints == ("http://127.0.0.1:4001", "http://127.0.0.1:2379")


@pytest.mark.parametrize(("text", "value"), [("", True), ("=false", False), ("=T", True), ("=0", False)])
def test_booleans_are_gos(text, value):
    assert parse([*REGISTRY, f"--ip-masq{text}"], {}).ip_masq is value


def test_cores_are_written_as_for_taskset(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 5})
    assert parse([*REGISTRY, "--workers=4", "--worker-cpus=5,0-2"], {}).worker_cpus == (5, 0, 1, 2)


def test_a_boolean_from_the_environment():
    assert parse(REGISTRY, {"FLANNELD_IPTABLES_FORWARD_RULES": "false"}).iptables_forward_rules is False


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--static-subnet=x"], "unknown flag --static-subnet, did you mean --static-subnets?"),
        (["-etcd-endpoint"], "unknown flag --etcd-endpoint, did you mean --etcd-endpoints?"),
        (["--qqqq"], "unknown flag --qqqq: see --help"),
        (["-v4"], "unknown flag --v4"),
        (["---v=1"], "bad flag syntax '---v=1'"),
        (["--=1"], "bad flag syntax '--=1'"),
        (["--public-ip"], "--public-ip: expected a value (IP)"),
        (["-v"], "-v: expected a value (LEVEL)"),
        (["--public-ip=host"], "--public-ip: invalid value 'host': expected an IPv4 address, like 192.0.2.7"),
        (["--public-ip=fc00::1"], "--public-ip: invalid value 'fc00::1'"),
        (["--iface-can-reach=x"], "--iface-can-reach: invalid value 'x'"),
        (["--iface-regex=["], "--iface-regex: invalid value '[': expected a regular expression: "),
        (["--healthz-ip=localhost"], "--healthz-ip: invalid value 'localhost': expected an IP address"),
        (["--healthz-port=65536"], "--healthz-port: invalid value '65536'"),
        (["--healthz-port=-1"], "--healthz-port: invalid value '-1'"),
        (["--healthz-port=\u0661"], "--healthz-port: invalid value"),
        (["-v=-1"], "-v: invalid value '-1': expected a number from 0 upwards"),
        (["--dataplane=fou"], "--dataplane: invalid value 'fou': expected userspace, kernel or auto"),
        (["--source-check=on"], "--source-check: invalid value 'on': expected subnet, peer or off"),
        (["--subnet-file=/"], "--subnet-file: invalid value '/': expected the path of a file"),
        (["extra"], "unexpected argument 'extra'"),
        (["--ip-masq", "true"], "unexpected argument 'true'"),
        (["--", "-v"], "unexpected argument '-v'"),
        (["--version=yes"], "--version: invalid value 'yes': expected true or false"),
        (
            ["--workers=1", "--worker-cpus=9999"],
            "--worker-cpus: invalid value '9999': expected cores that this process",
        ),
        (["--workers=1", "--worker-cpus=1-0"], "--worker-cpus: invalid value '1-0'"),
        (["--worker-cpus=0"], "--worker-cpus is of no use without --workers"),
        (["--ip-masq=maybe"], "--ip-masq: invalid value 'maybe': expected true or false"),
        (["--iptables-resync=0"], "--iptables-resync: invalid value '0': expected seconds from 1 to 86400"),
        (["--subnet-lease-renew-margin=1440"], "--subnet-lease-renew-margin: invalid value '1440': expected minutes"),
        (["--etcd-endpoints=127.0.0.1"], "--etcd-endpoints: invalid value '127.0.0.1': expected URLs"),
        (["--etcd-prefix=//"], "--etcd-prefix: invalid value '//': expected a path"),
        (["--etcd-keyfile=k"], "--etcd-keyfile is of no use without --etcd-certfile"),
        (["--etcd-password=p"], "--etcd-password is of no use without --etcd-username"),
        (["--kube-subnet-mgr"], "--static-subnets and --kube-subnet-mgr are two registries"),
        (["--public-ipv6=fe80::1%eth0"], "--public-ipv6: invalid value 'fe80::1%eth0'"),
    ],
)
def test_mistakes_are_named(argv, message):
    assert refused(REGISTRY + argv).startswith(message)


@pytest.mark.parametrize("argv", [["-h"], ["--help"], ["--help=1", "--iface=x"]])
def test_help_is_asked_for(argv):
    assert parse(argv, {"FLANNELD_V": "bad"}) is Ask.HELP


def test_version_comes_before_the_environment_and_refusals():
    assert parse(["--version", "--ip-masq"], {"FLANNELD_V": "bad"}) is Ask.VERSION
    assert parse([*REGISTRY, "--version=F"], {}) == parse(REGISTRY, {})


def test_the_usage_text_names_every_flag_and_command():
    text = usage({"status": "ask"})
    assert all(f"-{name} {flag.metavar}".rstrip() in text for name, flag in FLAGS.items())
    assert "status" in text
    assert "EXAMPLES" in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_tables_agree():
    assert {flag.field for flag in FLAGS.values()} == set(READERS) == set(Settings.__slots__)
    assert not set(FLAGS) & IGNORED


@pytest.mark.parametrize(
    ("argv", "place"),
    [
        (["--static-subnets=nodes.json"], "nodes.json"),
        (["--kube-subnet-mgr", "--net-config-path=net.json"], "net.json"),
        (["--etcd-prefix=/net"], "/net/config"),
    ],
)
def test_where_the_configuration_is_found(argv, place):
    assert parse(argv, {}).config_place == place


def test_settings_can_be_read_without_flags():
    assert Settings.read({"iface": Given("--iface", ("", "eth0"))}).iface == ("eth0",)
