"""Whether packets between two pods of this node pass iptables, where kube-proxy or masquerading needs it.

kube-proxy translates the address of a service and must see the answer again; between pods on one bridge it does only
where br_netfilter shows bridged packets to iptables. Without Kubernetes, flannel still refuses to masquerade by
iptables where the module is missing, and so do we.
"""

from __future__ import annotations

from udpbackend.doctor.aside import aside
from udpbackend.doctor.facts import Facts
from udpbackend.findings.finding import Finding, NotChecked, Results
from udpbackend.host import sysctl

KEY = "bridge/bridge-nf-call-iptables"


async def look(facts: Facts) -> Results:
    """bridge-nf-call-iptables."""
    masquerades = bool(facts.env and facts.env.ip_masq)
    if not facts.kubernetes and not masquerades:
        return [NotChecked("neither Kubernetes nor --ip-masq is in use, so nothing here needs br_netfilter")]
    return judge(await aside(sysctl.read)(KEY), kubernetes=facts.kubernetes)


def judge(value: int | None, *, kubernetes: bool) -> list[Finding]:
    """`value`: None where the module is not loaded."""
    name = sysctl.called(KEY)
    if value is None:
        return [
            Finding(
                "part" if kubernetes else "risk",
                "the kernel module br_netfilter is not loaded",
                f"there is no {name}",
                "modprobe br_netfilter, and its name in a file of /etc/modules-load.d",
            )
        ]
    if value == 0 and kubernetes:
        return [
            Finding(
                "part",
                "pods do not reach services whose pods run on the same node",
                f"{name} is 0",
                f"sysctl -w {name}=1, and a file in /etc/sysctl.d that keeps it",
            )
        ]
    return []
