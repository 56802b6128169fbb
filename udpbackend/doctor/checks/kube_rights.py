"""Whether Kubernetes lets the daemon do what it must: read and watch nodes, write the status of its own.

Asked of the API server itself, as whoever the doctor's flags make us: run it with the daemon's, best in its pod.
"""

from __future__ import annotations

from udpbackend.doctor.api import cluster
from udpbackend.doctor.facts import Facts
from udpbackend.errors import ConfigError, RegistryError
from udpbackend.findings.finding import Finding, NotChecked, Results

NEEDED = (("get", "nodes", ""), ("list", "nodes", ""), ("watch", "nodes", ""), ("patch", "nodes", "status"))
"""Verb, resource, subresource."""

RULES = (
    "give the ClusterRole of the daemon's account the rules `nodes: get, list, watch` and `nodes/status: patch`, and "
    "look whether a ClusterRoleBinding binds it to that account"
)


async def look(facts: Facts) -> Results:
    """RBAC."""
    if not facts.kubernetes:
        return [NotChecked("Kubernetes is not in use")]
    try:
        async with cluster(facts) as api:
            verdicts = {it: await api.may(*it) for it in NEEDED}
    except ConfigError as error:
        return [NotChecked(f"the API server cannot be asked: {error}")]
    except RegistryError as error:
        return [unasked(str(error), running=facts.running is not None)]
    return judge({it: verdict.reason for it, verdict in verdicts.items() if not verdict.allowed}, api.url)


def unasked(error: str, *, running: bool) -> Finding | NotChecked:
    """The server does not answer, or not us. A daemon that is ready has another way to it, or says so itself."""
    if running:
        return NotChecked(error)
    cure = "look at the API server, at the way to it, and at the token or kubeconfig"
    return Finding("down", "the API server of Kubernetes cannot be asked", error, cure)


def judge(refused: dict[tuple[str, str, str], str], url: str) -> list[Finding]:
    """`refused`: what is not allowed, and the server's reason."""
    if not refused:
        return []
    rights = [
        f"{verb} {'/'.join(filter(None, what))}" + (f" ({why})" if why else "")
        for (verb, *what), why in refused.items()
    ]
    evidence = f"{url} says that it may not {', '.join(rights)}"
    return [Finding("down", "Kubernetes forbids the daemon what it must do", evidence, RULES)]
