"""A daemon that is only its servers, for the tests that ask it."""

import asyncio
from contextlib import asynccontextmanager, nullcontext
from ipaddress import IPv4Address

from observed import facts

from udpbackend.observe.http import Server
from udpbackend.observe.metrics import Metrics


class Daemon:
    """Answers with what a test says, which may be an exception, after a while."""

    def __init__(self, **changes):
        self.changes = changes
        self.error = None
        self.wait_s = 0.0
        self.undisturbed_times = 0
        self.asked = asyncio.Event()

    def waiting_for(self):
        return self.changes.get("waiting_for")

    def view_age_s(self):
        return 3.4

    def undisturbed(self):
        self.undisturbed_times += 1
        return nullcontext()

    async def facts(self):
        self.asked.set()
        await asyncio.sleep(self.wait_s)
        if self.error is not None:
            raise self.error
        return facts(**self.changes)


@asynccontextmanager
async def serving(path, source=None, port=0):
    server = Server(
        source or Daemon(), Metrics(), socket_path=path, healthz_ip=IPv4Address("127.0.0.1"), healthz_port=port
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
