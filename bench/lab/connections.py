"""Many TCP connections that say a word now and then, and new ones all the time: what becomes of them.

    python -m bench.lab.connections serve ADDRESS PORT
    python -m bench.lab.connections hold ADDRESS PORT COUNT PER_S

`hold` opens COUNT connections, has each echo a word every EVERY_S, and makes PER_S new ones a second that echo one word
and end. It prints `open` when all are there, then a line of JSON for every line that it reads: what has happened since
the last one. An end of the input ends it. Must not know what the connections travel through.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
import time
from collections.abc import Awaitable

import uvloop

EVERY_S = 2.0
PATIENCE_S = 20.0
"""An echo that takes longer counts as a lost connection, a connect as a failed one."""
BACKLOG = 4096
WORD = b"word"


class Held:
    """What happened since the last question."""

    def __init__(self) -> None:
        self.lost = self.failed = self.made = self.echoes = 0
        self.stall_s = 0.0
        self.connect_s = 0.0
        self.why: dict[str, int] = {}

    def answer(self) -> str:
        """As JSON, and begins anew."""
        text = json.dumps(vars(self))
        self.__init__()  # type: ignore[misc]
        return text

    def note(self, error: Exception) -> None:
        """By what something failed."""
        name = type(error).__name__
        self.why[name] = self.why.get(name, 0) + 1


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(WORD)
    await reader.readexactly(len(WORD))


async def _hold(held: Held, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], phase_s: float) -> None:
    await asyncio.sleep(phase_s)
    try:
        while True:
            began = time.monotonic()
            async with asyncio.timeout(PATIENCE_S):
                await _echo(*streams)
            took = time.monotonic() - began
            held.echoes += 1
            held.stall_s = max(held.stall_s, took)
            await asyncio.sleep(max(0.0, EVERY_S - took))
    except (OSError, EOFError, TimeoutError) as error:
        held.lost += 1
        held.note(error)


async def _new(held: Held, address: str, port: int) -> None:
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(address, port)
            await _echo(reader, writer)
        writer.transport.abort()  # no TIME_WAIT: its ports are needed again
        held.made += 1
        held.connect_s = max(held.connect_s, time.monotonic() - began)
    except (OSError, EOFError, TimeoutError) as error:
        held.failed += 1
        held.note(error)


async def hold(address: str, port: int, count: int, per_s: float) -> None:
    """As said above."""
    held, tasks = Held(), set[asyncio.Task[None]]()
    streams = [await asyncio.open_connection(address, port) for _ in range(count)]

    def start(work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number, one in enumerate(streams):
        start(_hold(held, one, number * EVERY_S / count))
    print("open", flush=True)
    asked = asyncio.create_task(_answer(held))
    began, number = time.monotonic(), 0
    while not asked.done():
        number += 1
        await asyncio.sleep(max(0.0, began + number / per_s - time.monotonic()))
        start(_new(held, address, port))
    for task in tasks:
        task.cancel()


async def _answer(held: Held) -> None:
    while await asyncio.to_thread(sys.stdin.readline):
        print(held.answer(), flush=True)


async def serve(address: str, port: int) -> None:
    """Echoes whatever comes."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, address, port, backlog=BACKLOG, family=socket.AF_INET)
    print("listening", flush=True)
    await server.serve_forever()


def main() -> None:
    """The program."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    what, address, port, *rest = sys.argv[1:]
    if what == "serve":
        uvloop.run(serve(address, int(port)))
    else:
        uvloop.run(hold(address, int(port), int(rest[0]), float(rest[1])))


if __name__ == "__main__":
    main()
