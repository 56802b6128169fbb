"""All checks, beside each other and each within its time.

Owns the list of checks and what becomes of one that hangs or fails. Must not know what any of them looks at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from udpbackend.doctor.checks import (
    br_netfilter,
    clock,
    cni_config,
    daemon,
    duplicates,
    firewall,
    forwarding,
    interface,
    kube_rights,
    leftovers,
    losses,
    node_ready,
    other_backend,
    path_mtu,
    priority,
    reach,
    refused,
    rp_filter,
    subnet_file,
)
from udpbackend.doctor.facts import Facts
from udpbackend.errors import UdpBackendError
from udpbackend.findings.finding import WORST_FIRST, Finding, NotChecked, Results

LIMIT_S = 20.0
"""For one check; nearly all run at once. The longest takes some seconds where every peer is silent."""


class Check(NamedTuple):
    """One thing to look at."""

    name: str
    look: Callable[[Facts], Awaitable[Results]]
    at: str
    """What it looks at, for the case that this hangs."""
    last: bool = False
    """Whether it looks at what the others have caused, when they are done."""


CHECKS = (
    Check("daemon", daemon.look, "the daemon"),
    Check("interface", interface.look, "the routing table"),
    Check("kube-rights", kube_rights.look, "the API server"),
    Check("subnet-file", subnet_file.look, "the subnet file"),
    Check("cni-config", cni_config.look, "the directories of CNI"),
    Check("leftovers", leftovers.look, "the links and routes"),
    Check("duplicates", duplicates.look, "the leases"),
    Check("other-backend", other_backend.look, "the leases"),
    Check("forwarding", forwarding.look, "/proc/sys/net"),
    Check("firewall", firewall.look, "the rules of iptables"),
    Check("rp-filter", rp_filter.look, "the routing table"),
    Check("reach", reach.look, "the peers"),
    Check("path-mtu", path_mtu.look, "the paths to the peers"),
    Check("losses", losses.look, "the daemon"),
    Check("source-check", refused.look, "the daemon", last=True),
    Check("priority", priority.look, "the daemon"),
    Check("br-netfilter", br_netfilter.look, "/proc/sys/net"),
    Check("clock", clock.look, "the registry's clock"),
    Check("node-ready", node_ready.look, "the API server"),
)
"""Causes before their consequences: of equally bad findings the first stands first."""


class Found(NamedTuple):
    """What a check has come to."""

    check: str
    result: Finding | NotChecked


async def examine(facts: Facts, checks: tuple[Check, ...] = CHECKS, limit_s: float = LIMIT_S) -> list[Found]:
    """Findings, worst first, then what was not checked."""
    results: dict[str, Results] = {}
    for turn in (False, True):
        now = [check for check in checks if check.last == turn]
        for check, result in zip(now, await asyncio.gather(*(_one(it, facts, limit_s) for it in now)), strict=True):
            results[check.name] = result
    found = [Found(check.name, it) for check in checks for it in results[check.name]]
    found = _once(found, facts)
    return sorted(found, key=lambda it: _rank(it.result))


def _once(found: list[Found], facts: Facts) -> list[Found]:
    """What the daemon has found by itself, in the same words, is told by the check that knows the cure."""
    if facts.report is None or facts.report.verdict.state != "degraded":
        return found
    said = [it.result.what for it in found if isinstance(it.result, Finding)]
    own = [Found("daemon", it) for it in daemon.judge(facts.report, said)]
    return [*own, *(it for it in found if it.check != "daemon")]


def _rank(result: Finding | NotChecked) -> int:
    return WORST_FIRST.index(result.severity) if isinstance(result, Finding) else len(WORST_FIRST)


async def _one(check: Check, facts: Facts, limit_s: float) -> Results:
    deadline = asyncio.timeout(limit_s)
    try:
        async with deadline:
            return await check.look(facts)
    except UdpBackendError as error:
        return [NotChecked(str(error))]
    except Exception as error:  # noqa: BLE001 a defect of one check must not hide what the others have found
        if deadline.expired():
            return [_hangs(check, limit_s)]
        return [NotChecked(f"the check itself has failed, please report it: {error!r}")]


def _hangs(check: Check, limit_s: float) -> Finding:
    return Finding(
        "part",
        f"looking at {check.at} does not end",
        f"nothing has come within {limit_s:g} s",
        "look at it by hand: a file system, a program or a server that is asked hangs",
    )
