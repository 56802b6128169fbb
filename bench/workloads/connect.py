"""Short connections: how many can be made, used and closed in a second.

Owns the command line and output of the program `connect`.
"""

import re
from dataclasses import dataclass

from bench import programs
from bench.lab.traffic import SLACK_S, Way
from bench.lab.wait import LabError, until
from bench.workloads.base import Context, ForAll, Outcome

PORT = 7000
START_S = 0.1
_RESULT = re.compile(r"^made (\d+) failed (\d+) seconds ([\d.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Made:
    """What the client printed."""

    made: int
    failed: int
    seconds: float


def parse(text: str) -> Made:
    """Reads it; LabError when it is something else."""
    found = _RESULT.search(text)
    if found is None:
        raise LabError(f"the connect client printed {text.strip()[-300:]!r}")
    return Made(int(found[1]), int(found[2]), float(found[3]))


class Connect(ForAll):
    """Eight clients that each make one connection after the other."""

    name = row = "connect"
    what = "short TCP connections, one byte each way, eight at a time"
    headline = ("connects_per_s",)

    def cost_s(self, seconds: int) -> float:
        """Duration and start."""
        return seconds + START_S

    def run(self, way: Way, context: Context) -> Outcome:
        """One run of client and server."""
        program = programs.path("connect")
        server = way.server.start(program, "server", way.address, str(PORT), name="connect-server")
        try:
            until(lambda: way.server.run("ss", "-Hltn", f"sport = :{PORT}"), 5, "connect server: not listening")
            command = [program, "client", way.source, way.address, str(PORT), str(context.seconds)]
            seen = parse(way.client.run(*command, deadline_s=context.seconds + SLACK_S))
        finally:
            server.stop()
        if not seen.made:
            raise LabError(f"no connection was made, {seen.failed} failed")
        notes = [f"{seen.failed} connections failed"] if seen.failed else []
        return Outcome({"connects_per_s": seen.made / seen.seconds}, seen.made, seen.made, notes=notes)
