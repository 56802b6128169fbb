"""Runs iptables and nft: found on PATH, bounded in time, their failures told in their own words.

Owns the child processes. Blocks, so nobody calls it on the event loop. Must not know what rules are about.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from udpbackend.errors import BusyError, HostError

PACKAGES = {"iptables": "iptables", "ip6tables": "iptables", "nft": "nftables"}
"""Debian's package of each program; iptables-restore comes with iptables."""

LIMIT_S = 20.0
"""How long a program may take: a table of 50,000 rules takes iptables seconds."""


BUSY_STATUS = 4
"""iptables' exit status when it has not come to change anything, and its words when another program kept it from it."""
BUSY_WORDS = "holding the xtables lock"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program has ended."""

    command: str
    status: int
    out: str
    err: str

    def failure(self, doing: str) -> HostError:
        """The error for `cannot <doing>`, with the program's own reason; a BusyError where trying again helps."""
        said = " ".join((self.err.strip() or self.out.strip() or "it says nothing").split())
        hint = ""
        if "ermission denied" in said or "not permitted" in said:
            hint = "; the capabilities NET_ADMIN and NET_RAW are needed"
        kind = BusyError if self.status == BUSY_STATUS and BUSY_WORDS in said else HostError
        return kind(f"cannot {doing}: `{self.command}` ended with status {self.status}: {said}{hint}")


def installed(program: str) -> bool:
    """Whether it is on PATH."""
    return shutil.which(program) is not None


def require(program: str, needed_by: str = "masquerading and forward rules need") -> None:
    """Raises HostError that names the package when it is not on PATH. `needed_by`: how the error begins."""
    if not installed(program):
        raise HostError(
            f"{needed_by} the program {program}, which is not on PATH: Debian's package {PACKAGES[program]} brings it"
        )


def run(program: str, *arguments: str, text: str = "") -> Ended:
    """Runs it to its end with `text` as its input; HostError when it cannot be started or does not end."""
    command = " ".join((program, *arguments))
    try:
        done = subprocess.run(
            [program, *arguments],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT_S,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"`{command}` has not ended within {LIMIT_S:g} s") from None
    except OSError as error:
        raise HostError(f"cannot run {program}: {error.strerror or error}") from error
    return Ended(command, done.returncode, done.stdout, done.stderr)
