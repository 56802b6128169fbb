"""What every check may start from: the daemon's report, subnet.env, the links of this host.

Owns the gathering of it. What only one check needs, that check reads itself. Without a daemon most of it is not known:
then subnet.env says what the network is, as far as an earlier daemon has written it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from udpbackend.backends.backend import is_bound, overhead
from udpbackend.cni import subnetenv
from udpbackend.doctor.aside import aside
from udpbackend.errors import HostError
from udpbackend.findings.here import Here
from udpbackend.host import mark
from udpbackend.host.addresses import read_links
from udpbackend.host.interface import Link
from udpbackend.host.netlink import Netlink, failing
from udpbackend.host.route_table import TableRoute, read_main
from udpbackend.model import Prefix
from udpbackend.observe.report import Interface, Network, Peer, Report
from udpbackend.settings import Settings

FILE_S = 5.0
"""How long a small file may take to be read."""


@dataclass(frozen=True, slots=True)
class CniFolders:
    """Where the container runtime looks."""

    conf: Path = Path("/etc/cni/net.d")
    programs: tuple[Path, ...] = (Path("/opt/cni/bin"),)
    named: bool = False
    """Whether the operator has named the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One host at one moment."""

    settings: Settings
    """As given to the doctor, which need not be what the daemon was given."""
    ask: Callable[[], Awaitable[Report]]
    """Asks the daemon once more. Raises HostError."""
    cni: CniFolders = field(default_factory=CniFolders)
    netlink: Netlink
    links: tuple[Link, ...] = ()
    report: Report | None = None
    silence: str = ""
    """Without a report: why there is none."""
    barred: bool = False
    """Whether that is because the user who runs the doctor may not ask."""
    env: subnetenv.SubnetEnv | None = None
    env_problem: str = ""
    """Without subnet.env: what is wrong with it, in the CNI plugin's words."""

    @property
    def network(self) -> Prefix | None:
        """The overlay network."""
        if self.report and self.report.network:
            return Prefix.parse(self.report.network.network)
        return Prefix.parse(self.env.networks[0]) if self.env and self.env.networks else None

    @property
    def subnet(self) -> Prefix | None:
        """Our share of it."""
        if self.report and self.report.network and self.report.network.subnet:
            return Prefix.parse(self.report.network.subnet)
        return Prefix.parse(self.env.subnet) if self.env and self.env.subnet else None

    @property
    def running(self) -> tuple[Network, Interface] | None:
        """What the daemon works with; None before it is ready, and without one."""
        report = self.report
        if report is None or report.verdict.state == "starting" or not report.network or not report.interface:
            return None
        return report.network, report.interface

    @property
    def why_not_running(self) -> str:
        """Why `running` is None."""
        if self.barred:
            return "the daemon can be asked by root only"
        return "the daemon is not ready yet" if self.report else "no daemon answers"

    @property
    def overlay(self) -> str | None:
        """The overlay's device; without a daemon the one that has our subnet's base, as every backend's device does."""
        if self.running:
            return self.running[1].overlay_device
        base = self.subnet and self.subnet.base
        held = (link.name for link in self.links if base in [address.ip for address in link.addresses])
        return next(filter(mark.overlays, held), None)

    @property
    def here(self) -> Here | None:
        """Our node, for what the daemon looks at too. Without a daemon its interface and addresses are not known."""
        if self.network is None or self.subnet is None:
            return None
        chosen = self.running and self.running[1]
        return Here(
            network=self.network,
            subnet=self.subnet,
            interface=chosen.name if chosen else "",
            address=IPv4Address(chosen.address if chosen else 0),
            public_ip=IPv4Address(chosen.public_ip if chosen else 0),
            port=self.running[0].port if self.running and is_bound(self.running[0].backend) else None,
            overlay=self.overlay,
            overlay_mtu=(chosen and chosen.overlay_mtu) or 0,
            overhead=overhead(self.running[0].backend) if self.running else 0,
        )

    @property
    def names(self) -> dict[int, str]:
        """Of the links, by their indices."""
        return {link.index: link.name for link in self.links}

    async def routes(self) -> list[TableRoute]:
        """Of table main. Raises HostError."""

        async def read(_: Any) -> list[TableRoute]:
            with failing("read the routing table"):
                return read_main()

        return await self.netlink.call(read)

    @property
    def peers(self) -> list[Peer]:
        """The other nodes, as the daemon knows them."""
        return self.report.peers if self.report else []

    @property
    def kubernetes(self) -> bool:
        """Whether Kubernetes is the registry: by the daemon's word, by flags, or because this is a pod."""
        given = self.settings
        if given.kube_subnet_mgr or given.kube_api_url or given.kubeconfig_file:
            return True
        if self.report:
            return self.report.registry.kind == "kube"
        return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


async def gather(settings: Settings, cni: CniFolders, netlink: Netlink, ask: Callable[[], Awaitable[Report]]) -> Facts:
    """Reads all of it. Raises HostError where not even the links can be read."""
    report, silence, barred = None, "", False
    try:
        report = await ask()
    except HostError as error:
        silence, barred = str(error), isinstance(error.__cause__, PermissionError)
    env, env_problem = await _subnet_env(settings.subnet_file)
    return Facts(
        settings=settings,
        ask=ask,
        cni=cni,
        netlink=netlink,
        links=await read_links(netlink),
        report=report,
        silence=silence,
        barred=barred,
        env=env,
        env_problem=env_problem,
    )


async def _subnet_env(path: Path) -> tuple[subnetenv.SubnetEnv | None, str]:
    try:
        async with asyncio.timeout(FILE_S):
            return await _load(os.fspath(path)), ""
    except TimeoutError:
        return None, f"{path} cannot be read: nothing has come within {FILE_S:g} s"
    except ValueError as error:
        return None, str(error)


_load = aside(subnetenv.load)
