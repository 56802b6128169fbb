"""One daemon's counters, and how much each has grown since a mark."""

from typing import Any

from bench.lab.daemon import Overlay
from bench.lab.topology import Host
from bench.lab.wait import LabError, until

EFFORT = ("_bytes", "_reads", "_writes", "_messages")
"""How the names of counters end that tell how packets were moved, not which."""


class Tally:
    """`mark`, do something, then ask what has grown."""

    def __init__(self, overlay: Overlay, host: Host) -> None:
        self._overlay, self._host = overlay, host
        self.mark()

    def status(self) -> dict[str, Any]:
        return self._overlay.status(self._host)

    def read(self) -> dict[str, int]:
        """Every counter, the kernel's drops beside us included."""
        status = self.status()
        return {counter["name"]: counter["value"] for counter in (*status["counters"], *status["kernel"])}

    def peer(self, public_ip: str) -> dict[str, Any]:
        """What the status says of one peer."""
        [found] = [peer for peer in self.status()["peers"] if peer["public_ip"] == public_ip]
        return found

    def mark(self) -> None:
        """What was sent before is counted whole by then: a packet that is on its way would grow one counter only."""
        self._overlay.settle(self._host)
        self._marked = self.read()

    def grown(self, start: str = "") -> dict[str, int]:
        """Counters of packets whose name begins with `start` and that have grown, each with by how much."""
        return {
            name: value - self._marked[name]
            for name, value in self.read().items()
            if name.startswith(start) and not name.endswith(EFFORT) and value != self._marked[name]
        }

    def await_grown(self, start: str, expected: dict[str, int], deadline_s: float = 5) -> None:
        """Waits until exactly these counters have grown by exactly this; LabError with what has grown instead."""
        seen: dict[str, int] = {}

        def agree() -> bool:
            seen.clear()
            seen.update(self.grown(start))
            return seen == expected

        try:
            until(agree, deadline_s, f"counters {start}*: expected {expected}")
        except LabError as error:
            raise LabError(f"{error}, found {seen}") from None
