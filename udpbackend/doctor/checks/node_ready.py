"""Whether Kubernetes calls this node ready, has given it a podCIDR, and thinks its network available."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from udpbackend.doctor.api import cluster
from udpbackend.doctor.facts import Facts
from udpbackend.errors import UdpBackendError
from udpbackend.findings.finding import Finding, NotChecked, Results

if TYPE_CHECKING:
    from udpbackend.doctor.cluster import Condition, NodeHealth

NETWORK = ("network", "cni")
"""Words by which the kubelet's message speaks of us."""


async def look(facts: Facts) -> Results:
    """The node's own conditions."""
    if not facts.kubernetes:
        return [NotChecked("Kubernetes is not in use")]
    name = own_name(facts)
    try:
        async with cluster(facts) as api:
            return judge(await api.node(name))
    except UdpBackendError as error:
        return [NotChecked(f"the node {name!r} cannot be read: {error}")]


def own_name(facts: Facts) -> str:
    """As named by the operator, the environment or the daemon, or else like this host."""
    reported = facts.report.node if facts.report else ""
    return facts.settings.node_name or os.environ.get("NODE_NAME") or reported or os.uname().nodename


def judge(node: NodeHealth) -> list[Finding]:
    """What the node's object says."""
    found = []
    conditions = {it.type: it for it in node.status.conditions}
    if (ready := conditions.get("Ready")) and ready.status != "True":
        message = ready.message.lower()
        cure = (
            "the kubelet waits for the network: mend the findings about the CNI configuration and the daemon"
            if any(word in message for word in NETWORK)
            else "look at the kubelet of this node: journalctl -u kubelet"
        )
        found.append(Finding("down", f"the node {node.name} is NotReady", _said(ready), cure))
    if (unavailable := conditions.get("NetworkUnavailable")) and unavailable.status == "True":
        cure = "the daemon takes this condition away when it is ready, unless --set-node-network-unavailable=false"
        what = f"Kubernetes puts no pods on the node {node.name}: its network counts as unavailable"
        found.append(Finding("down", what, _said(unavailable), cure))
    if not node.spec.pod_cidr and not node.spec.pod_cidrs:
        cure = "start the controller manager with --allocate-node-cidrs and --cluster-cidr (kubeadm: podSubnet)"
        what = f"the node {node.name} has no podCIDR, so the daemon gets no subnet"
        found.append(Finding("down", what, "spec.podCIDR is empty", cure))
    return found


def _said(condition: Condition) -> str:
    return f"{condition.type} is {condition.status}: {condition.reason}: {condition.message}"
