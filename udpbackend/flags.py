"""The flags of the daemon: flannel's names and Go's syntax, and FLANNELD_* variables where a flag is not given.

Owns the table of flags, those of flannel that are refused until they are built included, and the splitting of an
argument list into flags and texts. What a text may be is settings.py's business. The splitting is ours because argparse
reads `-v4` as `-v 4` and refuses a value that begins with a dash, and Go does neither.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from udpbackend.errors import UsageError
from udpbackend.settings import Given, Settings


class Ask(Enum):
    """What may be asked for instead of a running daemon."""

    HELP = "help"
    VERSION = "version"


class Flag(NamedTuple):
    """A flag that takes a value: the field of Settings it fills, and its line in the usage text."""

    field: str
    metavar: str
    help: str


FLAGS = {
    "iface": Flag("iface", "NAME|IP", "interface to meet the peers on; repeatable, the first that exists is used"),
    "iface-regex": Flag("iface_regex", "REGEX", "likewise by pattern, if no --iface matched; repeatable"),
    "iface-can-reach": Flag("iface_can_reach", "IP", "use the interface of the route to this address"),
    "public-ip": Flag("public_ip", "IP", "address peers send to (default: that of the interface)"),
    "subnet-file": Flag("subnet_file", "FILE", "written for CNI (default /run/flannel/subnet.env)"),
    "healthz-ip": Flag("healthz_ip", "IP", "address of the health and metrics server (default 0.0.0.0)"),
    "healthz-port": Flag("healthz_port", "PORT", "its TCP port (default 0: no server)"),
    "static-subnets": Flag("static_subnets", "FILE", "JSON file with the network and its nodes; required"),
    "node-name": Flag("node_name", "NAME", "this host's name in that file (default: found by its address)"),
    "workers": Flag("workers", "N", "threads that move packets, or auto; 0 (default): the event loop does"),
    "source-ports": Flag("source_ports", "N", "further UDP ports to send from, chosen by flow (default 0)"),
    "source-check": Flag("source_check", "HOW", "what a received packet must show: subnet (default), peer or off"),
    "status-socket": Flag("status_socket", "FILE", "where `status` asks (default: the subnet file ending in .sock)"),
    "v": Flag("verbosity", "LEVEL", "log verbosity, from 0 (default) upwards"),
}

_STATIC = "give the nodes in a file with --static-subnets"
_ETCD = f"the etcd registry is not built yet, {_STATIC}"
_KUBE = f"the Kubernetes registry is not built yet, {_STATIC}"
_RULES = "no firewall rules are written yet, neither for masquerading nor for forwarding; leave it out"
_TRACE = "there is one log level for all files, set it with -v"

REFUSED = {
    "etcd-endpoints": _ETCD,
    "etcd-prefix": _ETCD,
    "etcd-keyfile": _ETCD,
    "etcd-certfile": _ETCD,
    "etcd-cafile": _ETCD,
    "etcd-username": _ETCD,
    "etcd-password": _ETCD,
    "subnet-lease-renew-margin": "a static subnet is never renewed; leave it out",
    "kube-subnet-mgr": _KUBE,
    "kube-api-url": _KUBE,
    "kubeconfig-file": _KUBE,
    "kube-annotation-prefix": _KUBE,
    "net-config-path": f"the network's configuration stands in the same file as the nodes, {_STATIC}",
    "set-node-network-unavailable": _KUBE,
    "public-ipv6": "datagrams travel over IPv4, whatever is inside; leave it out",
    "ip-masq": _RULES,
    "ip-masq-fully-random-disable": _RULES,
    "iptables-resync": _RULES,
    "iptables-forward-rules": _RULES,
    "ip-blackhole-route": "the route for unused addresses of the own subnet is not built yet; leave it out",
    "vmodule": _TRACE,
    "log_backtrace_at": _TRACE,
}
"""Flags of flannel that are not built yet, each with what to do instead."""

BOOLEANS = frozenset(
    {"ip-masq", "ip-masq-fully-random-disable", "kube-subnet-mgr", "iptables-forward-rules", "ip-blackhole-route"}
    | {"set-node-network-unavailable", "version", "h", "help"}
)
"""Flags whose value is never the next argument."""

GO_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
GO_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})

USAGE = """\
usage: udp-backend [FLAG ...]
       udp-backend COMMAND [ARGUMENT ...]

Joins this host to the overlay network and carries its packets until it is told to stop.

FLAGS
{flags}
  --version                 print the version and exit
  --help                    print this text and exit

  A flag may be written -flag VALUE, --flag VALUE or --flag=VALUE. A flag that is not given is read from the
  environment: FLANNELD_PUBLIC_IP for --public-ip.

COMMANDS
{commands}

EXAMPLES
  Join the network as the node of nodes.json that has the address of the default route's interface:
    udp-backend --static-subnets=/etc/udp-backend/nodes.json
  Choose the interface, and serve health and metrics to this host:
    udp-backend --static-subnets=nodes.json --iface=eth1 --healthz-ip=127.0.0.1 --healthz-port=8081
  Behind NAT, known to the peers by another address:
    udp-backend --static-subnets=nodes.json --iface=eth0 --public-ip=203.0.113.7
"""


def usage(commands: Mapping[str, str]) -> str:
    """The help text; `commands` are the names of sub-commands with their summaries."""
    flags = [
        (f"--{name} {flag.metavar}" if len(name) > 1 else f"-{name} {flag.metavar}", flag.help)
        for name, flag in FLAGS.items()
    ]
    return USAGE.format(flags=_columns(flags), commands=_columns(list(commands.items())))


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings | Ask:
    """Reads the argument list without the program's name. Raises UsageError."""
    texts = _split(argv)
    for ask, names in ((Ask.HELP, ("h", "help")), (Ask.VERSION, ("version",))):
        if any(_go_bool(name, text) for name in names for text in texts.get(name, ())[-1:]):
            return ask
    given = {name: Given(f"--{name}" if len(name) > 1 else f"-{name}", tuple(found)) for name, found in texts.items()}
    for name in (*FLAGS, *REFUSED):
        variable = "FLANNELD_" + name.upper().replace("-", "_").replace(".", "_")
        if name not in given and environ.get(variable):
            given[name] = Given(variable, (environ[variable],))
    for name, item in given.items():
        if name in REFUSED:
            raise UsageError(f"{item.origin} is not supported yet: {REFUSED[name]}")
    settings = Settings.read({FLAGS[name].field: item for name, item in given.items() if name in FLAGS})
    if settings.static_subnets is None:
        raise UsageError(
            f"no registry is given: the etcd registry, flannel's default, is not built yet, {_STATIC}=FILE"
        )
    return settings


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
        if name not in FLAGS and name not in REFUSED and name not in BOOLEANS:
            raise UsageError(f"unknown flag --{name}{_nearest(name)}")
        if not equals and name not in BOOLEANS:
            if not rest and name in FLAGS:
                raise UsageError(f"--{name}: expected a value ({FLAGS[name].metavar})")
            text = rest.pop(0) if rest else ""
        found.setdefault(name, []).append(text if equals or name not in BOOLEANS else "true")
    return found


def _go_bool(name: str, text: str) -> bool:
    if text not in GO_TRUE | GO_FALSE:
        raise UsageError(f"--{name}: invalid value {text!r}: expected true or false")
    return text in GO_TRUE


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, (*FLAGS, *REFUSED, "version", "help"), n=1)
    return f", did you mean --{near[0]}?" if near else ": see --help"


def _columns(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"  {left:24}  {right}" for left, right in rows)
