"""The flags of the daemon: flannel's names and Go's syntax, and FLANNELD_* variables where a flag is not given.

Owns the table of flags and the splitting of an argument list into flags and texts. What a text may be is texts.py's
business. The splitting is ours because argparse
reads `-v4` as `-v 4` and refuses a value that begins with a dash, and Go does neither.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from udpbackend.errors import UsageError
from udpbackend.settings import Given, Settings
from udpbackend.texts import go_bool


class Ask(Enum):
    """What may be asked for instead of a running daemon."""

    HELP = "help"
    VERSION = "version"


class Flag(NamedTuple):
    """A flag: the field of Settings it fills, and its line in the usage text."""

    field: str
    metavar: str
    """Empty for a boolean."""
    help: str


FLAGS = {
    "iface": Flag("iface", "NAME|IP", "interface to meet the peers on; repeatable, the first that exists is used"),
    "iface-regex": Flag("iface_regex", "REGEX", "likewise by pattern, if no --iface matched; repeatable"),
    "iface-can-reach": Flag("iface_can_reach", "IP", "use the interface of the route to this address"),
    "public-ip": Flag("public_ip", "IP", "address peers send to (default: that of the interface)"),
    "public-ipv6": Flag("public_ipv6", "IP", "likewise, for backends that travel over IPv6"),
    "subnet-file": Flag("subnet_file", "FILE", "written for CNI (default /run/flannel/subnet.env)"),
    "healthz-ip": Flag("healthz_ip", "IP", "address of the health and metrics server (default 0.0.0.0)"),
    "healthz-port": Flag("healthz_port", "PORT", "its TCP port (default 0: no server)"),
    "ui": Flag("ui", "", "that server also has a page of the node for people, at /"),
    "static-subnets": Flag("static_subnets", "FILE", "JSON file with the network and its nodes, instead of etcd"),
    "node-name": Flag("node_name", "NAME", "this host's name in that file (default: found by its address)"),
    "etcd-endpoints": Flag("etcd_endpoints", "URLS", "of etcd, by commas (default http://127.0.0.1: 4001 and 2379)"),
    "etcd-prefix": Flag("etcd_prefix", "PATH", "where its keys begin (default /coreos.com/network)"),
    "etcd-keyfile": Flag("etcd_keyfile", "FILE", "private key of the client's certificate"),
    "etcd-certfile": Flag("etcd_certfile", "FILE", "the client's certificate"),
    "etcd-cafile": Flag("etcd_cafile", "FILE", "certificates that etcd's own is checked with"),
    "etcd-username": Flag("etcd_username", "NAME", "user of etcd"),
    "etcd-password": Flag("etcd_password", "TEXT", "its password; better given as FLANNELD_ETCD_PASSWORD"),
    "subnet-lease-renew-margin": Flag("subnet_lease_renew_margin", "MIN", "minutes before its end (default 60)"),
    "kube-subnet-mgr": Flag("kube_subnet_mgr", "", "Kubernetes is the registry: a node's podCIDR is its subnet"),
    "kube-api-url": Flag("kube_api_url", "URL", "of its API server (default: what a pod finds)"),
    "kubeconfig-file": Flag("kubeconfig_file", "FILE", "or a kubeconfig"),
    "kube-annotation-prefix": Flag("kube_annotation_prefix", "TEXT", "default flannel.alpha.coreos.com"),
    "net-config-path": Flag("net_config_path", "FILE", "then the network (default /etc/kube-flannel/net-conf.json)"),
    "set-node-network-unavailable": Flag("set_node_network_unavailable", "", "tell Kubernetes of it (default true)"),
    "ip-masq": Flag("ip_masq", "", "masquerade what leaves the overlay"),
    "ip-masq-fully-random-disable": Flag("ip_masq_fully_random_disable", "", "without random source ports"),
    "iptables-forward-rules": Flag("iptables_forward_rules", "", "let the overlay through FORWARD (default true)"),
    "iptables-resync": Flag("iptables_resync", "SEC", "seconds between looks at the rules (default 5)"),
    "ip-blackhole-route": Flag("ip_blackhole_route", "", "unused addresses of the own subnet lead nowhere"),
    "cleanup-on-exit": Flag("cleanup_on_exit", "", "SIGTERM takes device, routes, rules and subnet file away too"),
    "workers": Flag("workers", "N", "threads that move packets, or auto; 0 (default): one queue, see --nice"),
    "worker-cpus": Flag("worker_cpus", "LIST", "cores to bind these threads to, in turn, like 0,2-3"),
    "nice": Flag("nice", "NICE", "nice value of the threads that move packets (default -15); 0: an ordinary one"),
    "seccomp": Flag("seccomp", "", "those threads can only make the system calls they need (default true)"),
    "source-ports": Flag("source_ports", "N", "further UDP ports to send from, chosen by flow (default 0)"),
    "copy-dscp": Flag("copy_dscp", "", "datagrams get the DSCP of the packet in them"),
    "offloads": Flag("offloads_off", "LIST", "switch some, like udp-coalesce=on,tso=off (default udp-coalesce=off)"),
    "dataplane": Flag("dataplane", "WHICH", "of the udp backend: userspace (default), kernel, or auto"),
    "source-check": Flag("source_check", "HOW", "what a received packet must show: subnet, peer or off"),
    "replace": Flag("replace", "", "stop a running daemon that cannot hand over to this one (default: refuse)"),
    "status-socket": Flag("status_socket", "FILE", "where `status` asks (default: the subnet file ending in .sock)"),
    "v": Flag("verbosity", "LEVEL", "log verbosity, from 0 (default) upwards"),
}

IGNORED = frozenset({"vmodule", "log_backtrace_at"})
"""Flags of klog that flannel has too: taken, and without effect, since there is one log level for all files."""

BOOLEANS = frozenset({name for name, flag in FLAGS.items() if not flag.metavar} | {"version", "h", "help"})
"""Flags whose value is never the next argument."""

USAGE = """\
usage: udp-backend [FLAG ...]
       udp-backend COMMAND [ARGUMENT ...]

Joins this host to the overlay network and carries its packets until it is told to stop.

FLAGS
{flags}
  --version                         print the version and exit
  --help                            print this text and exit

  A flag may be written -flag VALUE, --flag VALUE or --flag=VALUE. A flag that is not given is read from the
  environment: FLANNELD_PUBLIC_IP for --public-ip.

COMMANDS
{commands}

  With none of --static-subnets and --kube-subnet-mgr the registry is etcd, as with flannel.

EXAMPLES
  Join a network that is configured in etcd, and let its pods out to other networks:
    udp-backend --etcd-endpoints=https://192.0.2.10:2379 --etcd-cafile=/etc/etcd/ca.pem --ip-masq
  Join the network as the node of nodes.json that has the address of the default route's interface:
    udp-backend --static-subnets=/etc/udp-backend/nodes.json
  Choose the interface, and serve health and metrics to this host:
    udp-backend --static-subnets=nodes.json --iface=eth1 --healthz-ip=127.0.0.1 --healthz-port=8081
  Behind NAT, known to the peers by another address:
    udp-backend --static-subnets=nodes.json --iface=eth0 --public-ip=203.0.113.7
"""


def usage(commands: Mapping[str, str]) -> str:
    """The help text; `commands` are the names of sub-commands with their summaries."""
    flags = [(f"{_dashed(name)} {flag.metavar}".rstrip(), flag.help) for name, flag in FLAGS.items()]
    return USAGE.format(flags=_columns(flags), commands=_columns(list(commands.items())))


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings | Ask:
    """Reads the argument list without the program's name. Raises UsageError."""
    texts = _split(argv)
    for ask, names in ((Ask.HELP, ("h", "help")), (Ask.VERSION, ("version",))):
        if any(_asked(name, text) for name in names for text in texts.get(name, ())[-1:]):
            return ask
    given = {name: Given(_dashed(name), tuple(found)) for name, found in texts.items()}
    for name in FLAGS:
        variable = "FLANNELD_" + name.upper().replace("-", "_").replace(".", "_")
        if name not in given and environ.get(variable):
            given[name] = Given(variable, (environ[variable],))
    return Settings.read({FLAGS[name].field: item for name, item in given.items() if name in FLAGS})


def _split(argv: Sequence[str]) -> dict[str, list[str]]:
    """Flag names with the texts given for each, as Go's flag package splits them."""
    found: dict[str, list[str]] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--" and not rest:
            break
        if not word.startswith("-") or word in ("-", "--"):
            raise UsageError(f"unexpected argument {rest[0] if word == '--' else word!r}: expected a flag")
        name, equals, text = word.removeprefix("-").removeprefix("-").partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax {word!r}: expected --flag or --flag=VALUE")
        if name not in FLAGS and name not in IGNORED and name not in BOOLEANS:
            raise UsageError(f"unknown flag {_dashed(name)}{_nearest(name)}")
        if not equals and name not in BOOLEANS:
            if not rest and name in FLAGS:
                raise UsageError(f"{_dashed(name)}: expected a value ({FLAGS[name].metavar})")
            text = rest.pop(0) if rest else ""
        found.setdefault(name, []).append(text if equals or name not in BOOLEANS else "true")
    return found


def _dashed(name: str) -> str:
    return f"--{name}" if len(name) > 1 else f"-{name}"


def _asked(name: str, text: str) -> bool:
    try:
        return go_bool(text)
    except ValueError as error:
        raise UsageError(f"--{name}: invalid value {text!r}: {error}") from None


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, (*FLAGS, "version", "help"), n=1)
    return f", did you mean --{near[0]}?" if near else ": see --help"


def _columns(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"  {left:32}  {right}" for left, right in rows)
