"""A new route table while traffic flows: how long it takes, and what the traffic notices of it.

Owns the steady stream (the program `gap`) and the moment of the change. Only systems of `scaled` can be asked.
"""

import itertools
import re
import time
from dataclasses import dataclass

from bench import meter, programs
from bench.lab.traffic import SLACK_S, Way
from bench.lab.wait import LabError
from bench.systems.scaled import PUBLISHED_S, SCALED, Published, Scaled
from bench.workloads.base import Context, Outcome

PORT = 7001
DATAGRAM_BYTES = 16
AFTER_S = 1
"""How long the stream is watched before and after the change."""
_RESULT = re.compile(r"^came (\d+) lost (\d+) pause_ns (\d+)(?: late \d+)?$", re.MULTILINE)
_serial = itertools.count()


@dataclass(frozen=True)
class Stream:
    """What the receiver printed."""

    came: int
    lost: int
    pause_s: float


def parse(text: str) -> Stream:
    """Reads it; LabError when nothing came."""
    found = _RESULT.search(text)
    if found is None or not int(found[1]):
        raise LabError(f"the receiver of the stream printed {text.strip()[-300:]!r}")
    return Stream(int(found[1]), int(found[2]), int(found[3]) / 1e9)


class Publish:
    """The stream with nothing happening, then with a change in the middle."""

    name = row = "publish"
    what = "a new route table for every host while traffic flows (udp-subnets-* only)"
    headline = ("publish_s", "gap_s", "rss_bytes")

    def suits(self, system: str) -> bool:
        """Where the registry can be changed from here."""
        return system in {scaled.name for scaled in SCALED}

    def cost_s(self, seconds: int) -> float:
        """Two streams; with many subnets the second is longer."""
        return 2 * seconds + 4.0

    def run(self, way: Way, context: Context) -> Outcome:
        """Both streams."""
        system = context.system
        if not isinstance(system, Scaled):
            raise LabError("publish is measured on udp-subnets-* only")
        host = system.lab.hosts[0]
        before = system.published(host)
        idle = _stream(way, context.seconds, None)
        busy = _stream(way, context.seconds, system)
        took = _between(before, system.published(host))
        values = {
            "publish_s": took,
            "gap_s": busy.pause_s,
            "gap_idle_s": idle.pause_s,
            "rss_bytes": float(meter.resident_bytes(system.overlay.process(host).pid)),
        }
        return Outcome(values, forth_bytes=DATAGRAM_BYTES * (idle.came + busy.came), whole=False)


def _stream(way: Way, seconds: int, system: Scaled | None) -> Stream:
    program, number = programs.path("gap"), next(_serial)
    lasts = str(seconds if system is None else seconds + PUBLISHED_S)
    receiver = way.server.start(program, "receive", way.address, str(PORT), lasts, name=f"gap-receive-{number}")
    sender = way.client.start(program, "send", way.source, way.address, str(PORT), lasts, name=f"gap-send-{number}")
    try:
        if system is not None:
            _change(system)
            receiver.send(15)
        receiver.wait(seconds + SLACK_S)
    finally:
        sender.stop()
        receiver.stop()
    return parse(receiver.stdout.read_text())


def _change(system: Scaled) -> None:
    """Returns when every host has published, and a while later."""
    time.sleep(AFTER_S)
    system.change()
    time.sleep(AFTER_S)


def _between(before: Published, after: Published) -> float:
    if after.count <= before.count:
        raise LabError("the daemon has not published a route table")
    return (after.seconds - before.seconds) / (after.count - before.count)
