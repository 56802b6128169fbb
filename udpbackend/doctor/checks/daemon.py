"""Whether the daemon runs and is content: its own verdict, repeated."""

from __future__ import annotations

from collections.abc import Collection

from udpbackend.doctor.facts import Facts
from udpbackend.findings.finding import Finding, Results, Severity
from udpbackend.observe.report import Report

WAITING_CURES = {
    "the network's configuration": "the registry must answer and hold a good configuration: ",
    "a lease": "the registry must give this node a subnet: ",
}
GOES_ON = "the daemon goes on by itself as soon as it can"


async def look(facts: Facts) -> Results:
    """Not running, not ready, degraded."""
    if facts.barred:
        what = "whether a daemon runs cannot be told: only its own user and root may ask it"
        return [Finding("risk", what, facts.silence, "run the doctor as root")]
    if facts.report is None:
        return [
            Finding(
                "down",
                "no daemon answers on this host",
                facts.silence,
                "start it (systemctl start udp-backend, or its pod), or restart one that runs and is silent; where it "
                "ends at once, the last line of its log says why. If it runs with another --subnet-file or "
                "--status-socket, give the doctor the same",
            )
        ]
    return judge(facts.report)


def judge(report: Report, said: Collection[str] = ()) -> list[Finding]:
    """What a report says of itself, but for what other findings have `said` in the same words."""
    verdict = report.verdict
    if verdict.state == "starting":
        cure = WAITING_CURES.get(verdict.reasons[0].removeprefix("waiting for "), "look at its log: ") + GOES_ON
        severity: Severity = "down" if report.restart.inherited_age_s is None else "part"  # new peers are not reached
        return [Finding(severity, "the daemon is not ready", "; ".join(verdict.reasons), cure)]
    reasons = [it for it in verdict.reasons if not any(it.startswith(f"{what} (") for what in said)]
    if verdict.state == "degraded" and reasons:
        cure = f"mend what each clause names; {GOES_ON}"
        return [Finding("part", "the daemon is degraded", "; ".join(reasons), cure)]
    return []
