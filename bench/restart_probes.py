"""What is watched while a daemon is restarted: a stream of datagrams, and many TCP connections.

Owns the programs at both ends and what they print. Must not know what happens meanwhile.
"""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from bench.lab.process import Process
from bench.lab.traffic import Way
from bench.lab.wait import LabError, until
from bench.programs import path as compiled
from bench.surroundings import ROOT

PORT = 7021
LASTS_S = 120
"""Longer than any event; both ends are stopped before."""
BEGIN_S = 10.0
SETTLE_S = 0.3
"""What is under way at the end arrives within this."""
_RESULT = ("came", "lost", "pause_ns", "late", "span_ns")
_serial = itertools.count()


@dataclass(frozen=True)
class Seen:
    """One event, as the stream saw it."""

    came: int
    lost: int
    late: int
    pause_s: float
    span_s: float
    """From the first to the last."""


def parse(text: str) -> Seen:
    """What the receiver printed; LabError when nothing came."""
    words = text.split()
    found = {name: int(words[words.index(name) + 1]) for name in _RESULT if name in words}
    if len(found) < len(_RESULT) or not found["came"]:
        raise LabError(f"the receiver of the stream printed {text.strip()[-300:]!r}")
    return Seen(found["came"], found["lost"], found["late"], found["pause_ns"] / 1e9, found["span_ns"] / 1e9)


class Watched:
    """A stream under way; `seen` once the context is left."""

    def __init__(self, receiver: Process) -> None:
        self._receiver = receiver

    def seen(self) -> Seen:
        """What came of it."""
        return parse(self._receiver.stdout.read_text())


@contextmanager
def stream(way: Way, per_s: int) -> Iterator[Watched]:
    """A steady stream along the way while the context lasts."""
    program, number = compiled("gap"), next(_serial)
    tail = (str(LASTS_S), str(per_s))
    receiver = way.server.start(program, "receive", way.address, str(PORT), *tail, name=f"restart-receive-{number}")
    sender = way.client.start(program, "send", way.source, way.address, str(PORT), *tail, name=f"restart-send-{number}")
    try:
        yield Watched(receiver)
    finally:
        sender.stop()
        with suppress(LabError):
            receiver.wait(SETTLE_S)
        receiver.stop()


class Connections:
    """Held from one end of a way to the other while the context lasts."""

    def __init__(self, way: Way, count: int, new_per_s: float) -> None:
        self._way, self._count, self._new_per_s = way, count, new_per_s
        self._server: Process | None = None
        self._client: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        module = (sys.executable, "-m", "bench.lab.connections")
        there = (self._way.address, str(PORT))
        name = f"connections-{next(_serial)}"
        self._server = server = self._way.server.start(*module, "serve", *there, name=name)
        until(lambda: "listening" in server.stdout.read_text(), BEGIN_S, "the server of the connections")
        command = self._way.client.argv([*module, "hold", *there, str(self._count), str(self._new_per_s)])
        self._client = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT
        )
        if self._line() != "open":
            raise LabError("the connections cannot be made")
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.kill()
            self._client.wait()
        if self._server is not None:
            self._server.stop()

    def ask(self) -> dict[str, Any]:
        """What happened to them since the last question."""
        if self._client is None or self._client.stdin is None:
            raise LabError("no connections are held")
        self._client.stdin.write("\n")
        self._client.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def _line(self) -> str:
        line = self._client.stdout.readline().strip() if self._client and self._client.stdout else ""
        if not line:
            raise LabError("the program that holds connections has ended")
        return line
