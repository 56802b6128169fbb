"""Whether the rules are there that let pods out and through.

Masquerading is wanted where subnet.env says so, and must then be held by iptables or by nftables. Forward rules matter
only where the policy of iptables' chain FORWARD is to drop: then it depends on them whether anything passes. What other
programs' chains do to packets is not judged.
"""

from __future__ import annotations

from collections.abc import Sequence

from udpbackend.doctor.aside import aside
from udpbackend.doctor.facts import Facts
from udpbackend.doctor.finding import Finding, NotChecked, Results
from udpbackend.errors import HostError
from udpbackend.host import firewall_program
from udpbackend.host.firewall_rules import FORWARD, MASQUERADE, NFT_TABLES, Branch, FirewallPlan, iptables_rules
from udpbackend.host.iptables import Iptables
from udpbackend.host.mark import BRIDGE
from udpbackend.host.nftables import Nftables
from udpbackend.model import Prefix

DROPS = f"-P {FORWARD.parent} DROP"
NFT_TABLE = NFT_TABLES[4]


async def look(facts: Facts) -> Results:
    """Rules that are wanted and missing."""
    network, subnet = facts.network, facts.subnet
    if network is None or subnet is None:
        return [NotChecked("what this node's subnet is, neither a daemon nor subnet.env says")]
    devices = [BRIDGE, *filter(None, [facts.overlay])]
    return await _look(network, subnet, devices, masquerade=bool(facts.env and facts.env.ip_masq))


@aside
def _look(network: Prefix, subnet: Prefix, devices: Sequence[str], *, masquerade: bool) -> Results:
    if not firewall_program.installed("iptables"):
        return [NotChecked("the program iptables is not on PATH")]
    try:
        found = _masquerade(network, subnet) if masquerade else []
        listed = firewall_program.run("iptables", "--wait=5", "-S", FORWARD.parent)
        if listed.status:
            raise listed.failure("read the rules of iptables")
        if drops(listed.out, (str(network), str(subnet), *devices)):
            found += _forward(network, subnet)
    except HostError as error:
        return [NotChecked(str(error))]
    return found


def _masquerade(network: Prefix, subnet: Prefix) -> list[Finding]:
    if any(str(network) in line and "masquerade" in line for line in Nftables().held()[NFT_TABLE]):
        return []
    # Whether source ports are to be random only the daemon's flags say.
    gaps = [_gaps(FirewallPlan(network, subnet, masquerade=True, fully_random=it), MASQUERADE) for it in (True, False)]
    if not all(gaps):
        return []
    return [
        Finding(
            "part",
            "what pods send out of the overlay is not masqueraded: answers from outside do not find back",
            f"subnet.env says FLANNEL_IPMASQ=true; {'; '.join(gaps[0])}; nftables has no table {NFT_TABLE} for it",
            "restart the daemon with --ip-masq; if the rules vanish again, another program flushes them",
        )
    ]


def _forward(network: Prefix, subnet: Prefix) -> list[Finding]:
    gaps = _gaps(FirewallPlan(network, subnet), FORWARD)
    if not gaps:
        return []
    return [
        Finding(
            "down",
            "the firewall drops what passes between pods and the overlay",
            f"the policy of iptables' chain {FORWARD.parent} is DROP; {'; '.join(gaps)}",
            f"restart the daemon without --iptables-forward-rules=false; or iptables -A {FORWARD.parent} -s {network} "
            "-j ACCEPT, and the same with -d",
        )
    ]


def drops(listed: str, ours: Sequence[str]) -> bool:
    """Whether `iptables -S FORWARD` shows a policy to drop, and no rule that lets through something of `ours`."""
    lines = listed.splitlines()
    lets = any(line.endswith("-j ACCEPT") and set(ours).intersection(line.split()) for line in lines)
    return DROPS in lines and not lets


def _gaps(plan: FirewallPlan, branch: Branch) -> tuple[str, ...]:
    wanted = iptables_rules(plan, 4)[branch.table]
    return Iptables(4).look({branch.table: wanted})
