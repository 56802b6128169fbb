"""Runs `udp-backend doctor` on a host of the laboratory, and reads what it says.

Owns the flags that point it at that host's daemon and at no file of this machine. Must not know any finding.
"""

import json
import subprocess
from dataclasses import dataclass

from bench.lab.daemon import Overlay, program
from bench.lab.netns import Namespace
from bench.lab.topology import Host

DOCTOR_S = 40.0


@dataclass(frozen=True)
class Diagnosis:
    """The document of --json."""

    document: dict
    status: int

    @property
    def findings(self) -> dict[str, dict]:
        """By the check; of several of one check the first."""
        return {it["check"]: it for it in reversed(self.document["findings"])}

    @property
    def not_checked(self) -> dict[str, str]:
        """Check and why."""
        return {it["check"]: it["why"] for it in self.document["not_checked"]}

    def only(self, *checks: str) -> dict:
        """The finding of the first of these checks, which are all that have found anything; the exit status is 1."""
        assert {it["check"] for it in self.document["findings"]} == set(checks), json.dumps(self.document, indent=1)
        assert self.status == 1
        return self.findings[checks[0]]

    def nothing(self) -> None:
        """No finding at all, and the exit status is 0."""
        assert self.document["findings"] == [], json.dumps(self.document, indent=1)
        assert self.status == 0


def words(overlay: Overlay, host: Host, *flags: str) -> list[str]:
    """The command line inside that host."""
    return [program(), "doctor", f"--subnet-file={overlay.run_directory(host) / 'subnet.env'}", *flags]


def examine(overlay: Overlay, host: Host, *flags: str, before: tuple[str, ...] = ()) -> Diagnosis:
    """What the doctor says there. `before`: a program that runs it."""
    return _diagnosis(host.namespace.argv([*before, *words(overlay, host, *flags), "--json"]))


def diagnose(namespace: Namespace, *flags: str) -> Diagnosis:
    """What it says in a namespace, with these flags and no others."""
    return _diagnosis(namespace.argv([program(), "doctor", *flags, "--json"]))


def _diagnosis(argv: list[str]) -> Diagnosis:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DOCTOR_S, check=False)
    assert done.stderr == "", done.stderr
    return Diagnosis(json.loads(done.stdout), done.returncode)
