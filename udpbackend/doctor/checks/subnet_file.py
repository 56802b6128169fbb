"""Whether subnet.env is there and says what the daemon works with: the CNI plugin knows nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from udpbackend.cni.subnetenv import SubnetEnv
from udpbackend.doctor.facts import Facts
from udpbackend.findings.finding import Finding, Results
from udpbackend.observe.report import Interface, Network

RESTART = "restart the daemon, which writes it when it is ready"


async def look(facts: Facts) -> Results:
    """Missing, incomplete, of another lease."""
    path = facts.settings.subnet_file
    if facts.env is None:
        return [absent(path, facts.env_problem, facts.report.verdict.state if facts.report else None)]
    if facts.running is None:
        return []  # nothing to compare it with, and that no daemon is ready is said elsewhere
    return judge(path, facts.env, *facts.running)


def absent(path: Path, problem: str, daemon: str | None) -> Finding:
    """For a file that the plugin cannot use, `problem` in its own words; `daemon`: its state, if there is one."""
    there = os.path.lexists(path)
    what = f"{path} cannot be used" if there else f"{path} is missing"
    cure = {
        None: "start the daemon, which writes it when it is ready",
        "starting": "the daemon writes it when it is ready: what it waits for comes first",
    }.get(daemon, RESTART)
    folder = "; in a container, look whether the host's directory is mounted there"
    return Finding("down", f"{what}: no pod can start on this node", problem, cure + folder)


def judge(path: Path, env: SubnetEnv, network: Network, interface: Interface) -> list[Finding]:
    """The file beside what the daemon works with."""
    rows = [
        ("FLANNEL_NETWORK", env.networks, [network.network]),
        ("FLANNEL_SUBNET", env.subnet, network.subnet),
        ("FLANNEL_IPV6_NETWORK", env.networks6, [network.ipv6_network] if network.ipv6_subnet else []),
        ("FLANNEL_IPV6_SUBNET", env.subnet6, network.ipv6_subnet or ""),
        ("FLANNEL_MTU", env.mtu, interface.overlay_mtu),
    ]
    wrong = [
        f"{key} is {_text(has) or 'not there'} where the daemon has {_text(wants) or 'none'}"
        for key, has, wants in rows
        if has != wants and wants is not None
    ]
    if not wrong:
        return []
    return [
        Finding(
            "part",
            f"{path} is not of the daemon that runs: new pods get addresses or an MTU that do not fit",
            "; ".join(wrong),
            f"{RESTART}; pods made meanwhile must be made again. Look for a second daemon that writes there too",
        )
    ]


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value or "")
