"""What the operator chose, as one frozen value: every setting with its type, its unit and its default.

It does not know where a text was written: flags.py hands over each text with the name of its place, and an error
repeats that name. What a text may be stands in texts.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, NamedTuple, Self

from udpbackend.errors import UsageError
from udpbackend.texts import NICE, OFFLOADS_OFF, READERS, REPEATABLE, SECRET, Dataplane, SourceCheck

ANY_ADDRESS = IPv4Address(0)

ETCD_ENDPOINTS = ("http://127.0.0.1:4001", "http://127.0.0.1:2379")

MAY_DIFFER = frozenset(
    {
        *("verbosity", "healthz_ip", "healthz_port", "iptables_resync", "subnet_lease_renew_margin"),
        *("replace", "cleanup_on_exit", "ui", "seccomp", "dataplane"),
        *("etcd_keyfile", "etcd_certfile", "etcd_cafile", "etcd_username", "etcd_password"),
        *("kube_api_url", "kubeconfig_file"),
    }
)
"""Settings in which a daemon may differ from the one before it and still go on with its queues."""

SOCKET_PATH_BYTES = 107
"""The longest name of a UNIX socket: sun_path without its final zero byte."""


class Given(NamedTuple):
    """The texts given for one setting and the place they come from, `--iface` for example."""

    origin: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the daemon is told at its start; nothing in it changes while it runs."""

    iface: tuple[str, ...] = ()
    """Interfaces to meet the peers on, each a name or an IP address; the first that exists is used."""

    iface_regex: tuple[str, ...] = ()
    """Regular expressions, tried against addresses and then names where no `iface` matched."""

    iface_can_reach: IPv4Address | None = None
    """Use the interface and source address of the route to this address."""

    public_ip: IPv4Address | None = None
    """The address peers send to. None: the address of the chosen interface."""

    public_ipv6: IPv6Address | None = None
    """Likewise for backends that travel over IPv6 too."""

    subnet_file: Path = Path("/run/flannel/subnet.env")
    """Written for the CNI plugin once the network is up."""

    healthz_ip: IPv4Address | IPv6Address = ANY_ADDRESS
    """The address the health and metrics server listens on."""

    healthz_port: int = 0
    """Its TCP port, 0 to 65535; 0 means there is no server."""

    ui: bool = False
    """Whether that server also has a page for people, and the status document that the page shows."""

    verbosity: int = 0
    """How much is logged: 0 what happens, 1 and above also why, 4 and above also what libraries say."""

    static_subnets: Path | None = None
    """The JSON file that says which node owns which subnet: the static registry."""

    etcd_endpoints: tuple[str, ...] = ETCD_ENDPOINTS
    """URLs of the members of etcd, the registry where no other is chosen."""

    etcd_prefix: str = "/coreos.com/network"
    etcd_keyfile: Path | None = None
    etcd_certfile: Path | None = None
    etcd_cafile: Path | None = None
    etcd_username: str | None = None
    etcd_password: str | None = None

    subnet_lease_renew_margin: int = 60
    """Minutes before its end at which a lease is renewed, 1 to 1439."""

    kube_subnet_mgr: bool = False
    """Whether Kubernetes is the registry: a node's spec.podCIDR is its subnet."""

    kube_api_url: str | None = None
    kubeconfig_file: Path | None = None
    """With neither of these two: what a pod finds in its file system."""

    kube_annotation_prefix: str = "flannel.alpha.coreos.com"
    net_config_path: Path = Path("/etc/kube-flannel/net-conf.json")
    set_node_network_unavailable: bool = True
    """Whether the node's condition NetworkUnavailable is set to False once packets flow."""

    ip_masq: bool = False
    """Whether what leaves the overlay is masqueraded."""

    ip_masq_fully_random_disable: bool = False

    iptables_forward_rules: bool = True
    """Whether packets of the overlay are let through where the policy of FORWARD is to drop."""

    iptables_resync: int = 5
    """Seconds between two looks at the rules."""

    ip_blackhole_route: bool = False
    """Whether unused addresses of our own subnet lead nowhere instead of back to the overlay."""

    cleanup_on_exit: bool = False
    """Whether a signal that ends the daemon takes device, routes, rules and subnet file away too."""

    node_name: str | None = None
    """This host's name in the registry. None: it is found by its public address."""

    dataplane: Dataplane | None = None
    """Who moves the udp backend's packets: we, the kernel, or the kernel where it can. None: as the network's
    configuration says, and else we."""

    source_check: SourceCheck | None = None
    """What a received packet must show: `subnet` a peer's outer address and an inner one of its subnet, `peer` only the
    outer address, `off` nothing. None: the most that the dataplane can check."""

    workers: int = 0
    """Threads that turn a queue each, 0 to 16; with 0 the event loop turns the only queue."""

    worker_cpus: tuple[int, ...] = ()
    """Cores that these threads are bound to, in turn; none: the kernel chooses."""

    nice: int = NICE
    """Of the threads that move packets, -20 to 0; the control plane keeps that of the process."""

    seccomp: bool = True
    """Whether those threads run under a filter of system calls, where the kernel has that."""

    source_ports: int = 0
    """Further UDP ports to send from, 0 to 15, so that the receiver's card and kernel can spread flows."""

    copy_dscp: bool = False
    """Whether datagrams get the DSCP of the packet in them; its ECN they always get."""

    offloads_off: frozenset[str] = OFFLOADS_OFF
    """Offloads that are not used though the kernel may grant them, by their names in `status`."""

    replace: bool = False
    """Whether a running daemon that cannot hand over to this one is asked to stop; otherwise this start is refused."""

    status_socket: Path = Path()
    """Where `status` asks the daemon. Left empty: the subnet file's name, ending in .sock."""

    def __post_init__(self) -> None:
        """Derives the status socket from the subnet file and refuses what does not go together."""
        if self.status_socket == Path():
            object.__setattr__(self, "status_socket", self.subnet_file.with_suffix(".sock"))
        if len(os.fsencode(self.status_socket)) > SOCKET_PATH_BYTES:
            raise UsageError(
                f"--status-socket: {str(self.status_socket)!r} is too long for a UNIX socket: "
                f"expected at most {SOCKET_PATH_BYTES} bytes"
            )
        if self.static_subnets is not None and self.kube_subnet_mgr:
            raise UsageError("--static-subnets and --kube-subnet-mgr are two registries: expected one of them")
        if self.worker_cpus and not self.workers:
            raise UsageError("--worker-cpus is of no use without --workers: there is no thread to bind")
        if self.ui and not self.healthz_port:
            raise UsageError("--ui is of no use without --healthz-port: expected the port that serves the page")
        for one, other in (("keyfile", "certfile"), ("certfile", "keyfile"), ("password", "username")):
            if getattr(self, f"etcd_{one}") is not None and getattr(self, f"etcd_{other}") is None:
                raise UsageError(f"--etcd-{one} is of no use without --etcd-{other}: expected both or neither")

    @property
    def config_place(self) -> str:
        """Where the operator finds the network's configuration."""
        if self.static_subnets is not None:
            return str(self.static_subnets)
        return str(self.net_config_path) if self.kube_subnet_mgr else f"{self.etcd_prefix}/config"

    def identity(self) -> dict[str, str]:
        """The settings by which a daemon can go on where another one stopped; those at their defaults are left out.

        Left out, so that versions that differ in what settings there are can compare them.
        """
        default = type(self)()
        given = {it.name: getattr(self, it.name) for it in fields(self) if it.name not in MAY_DIFFER}
        if self.source_check == "subnet":  # only queues are gone on with, and there it is what None means
            del given["source_check"]
        return {name: _said(value) for name, value in given.items() if value != getattr(default, name)}

    @classmethod
    def read(cls, given: Mapping[str, Given]) -> Self:
        """Checks the texts given for each field; an empty one counts as none. Raises UsageError naming the place."""
        values: dict[str, Any] = {}
        for field, item in given.items():
            texts = tuple(text for text in item.texts if text)
            if field in REPEATABLE:
                values[field] = tuple(_value(field, text, item.origin) for text in texts)
            elif item.texts[-1]:
                values[field] = _value(field, item.texts[-1], item.origin)
        return cls(**values)


def _said(value: Any) -> str:
    """A value as text, the same in every process."""
    if isinstance(value, frozenset):
        return ",".join(sorted(map(str, value)))
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _value(field: str, text: str, origin: str) -> Any:
    try:
        return READERS[field](text)
    except ValueError as error:
        shown = "" if field in SECRET else f" {text!r}"
        raise UsageError(f"{origin}: invalid value{shown}: {error}") from None
