"""One node's subnet manager at work against a real etcd, and a way to cut it off.

Owns the order of calls, which is the daemon's. Knows nothing of routes: what a manager hands over is collected.
"""

import asyncio
import json
import time
from base64 import b64decode
from contextlib import aclosing, suppress
from ipaddress import IPv4Address
from urllib.parse import urlsplit

from udpbackend.backends.backend import check_config
from udpbackend.model import Attributes
from udpbackend.settings import Settings
from udpbackend.subnets.etcd.manager import manager

DEADLINE_S = 20.0
CONFIG = '{"Network":"10.5.0.0/16","Backend":{"Type":"udp"}}'


async def until(condition, what, deadline_s=DEADLINE_S):
    """Waits until `condition` gives something true; that."""
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, f"still waiting: {what}"
        await asyncio.sleep(0.01)
    return found


class Node:
    """Between entering and leaving the context it has a lease, follows the others' and keeps its own."""

    def __init__(self, endpoints, prefix, directory, public_ip="192.0.2.1", **settings):
        file = directory / "subnet.env"
        self.manager = manager(
            Settings(etcd_endpoints=tuple(endpoints), etcd_prefix=prefix, subnet_file=file, **settings)
        )
        self.attributes = Attributes(IPv4Address(public_ip))
        self.snapshots = []
        self._tasks = []

    async def __aenter__(self):
        await self.manager.open(check_config)
        self.lease = await self.manager.acquire(self.attributes)
        self.watching = asyncio.create_task(self._watch())
        await until(lambda: self.snapshots, "the first snapshot")
        self.running = asyncio.create_task(self.manager.run())
        self._tasks = [self.watching, self.running]
        return self

    async def __aexit__(self, *_):
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
        await self.manager.close()

    async def _watch(self):
        async with aclosing(self.manager.watch(self.lease)) as snapshots:
            async for snapshot in snapshots:
                self.snapshots.append(snapshot)

    @property
    def key(self):
        """The name of our key in etcd, behind the prefix."""
        return str(self.lease.subnet).replace("/", "-")

    @property
    def degraded(self):
        return self.manager.state.degraded or ""

    def subnets(self, snapshot=None):
        """The others' subnets in the last snapshot, or in another one."""
        leases = (snapshot or self.snapshots[-1]).leases
        assert self.lease in leases
        return {str(lease.subnet) for lease in leases} - {str(self.lease.subnet)}

    async def sees(self, *subnets):
        """Waits until the others' subnets are these."""
        await until(lambda: self.subnets() == set(subnets), f"not {subnets}, last {self.subnets()}")

    async def is_well(self):
        """Waits until nothing is wrong any more."""
        await until(lambda: not self.degraded, f"last: {self.degraded}")

    async def error(self):
        """What `run` ends with; of a group the first."""
        await asyncio.wait([self.running], timeout=DEADLINE_S)
        error = self.running.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        return error


def value(public_ip):
    return f'{{"PublicIP":"{public_ip}","PublicIPv6":null}}'


class Scene:
    """A network in an etcd, and what others write there."""

    def __init__(self, etcd, prefix, directory):
        self.etcd, self.prefix = etcd, prefix
        self._directory = directory
        (directory / "subnet.env").write_text("FLANNEL_SUBNET=10.5.1.1/24\n")  # or it might be one of the others'
        self.configure()

    def configure(self, text=CONFIG):
        self.etcd.ctl("put", f"{self.prefix}/config", text)

    def put(self, name, text):
        """A key of another node, or of nobody."""
        self.etcd.ctl("put", f"{self.prefix}/subnets/{name}", text)

    def peer(self, number):
        self.put(f"10.5.{number}.0-24", value(f"192.0.2.{number}"))

    def delete(self, name):
        """The revision at which it was gone."""
        return json.loads(self.etcd.ctl("del", "-w", "json", f"{self.prefix}/subnets/{name}"))["header"]["revision"]

    def get(self, name):
        """Its value; empty if there is none."""
        return self.etcd.ctl("get", "--print-value-only", f"{self.prefix}/subnets/{name}")

    def find(self, name):
        """Its value and the lease it dies with; None if there is none."""
        found = json.loads(self.etcd.ctl("get", "-w", "json", f"{self.prefix}/subnets/{name}")).get("kvs")
        return found and {"value": b64decode(found[0]["value"]).decode(), "lease": found[0].get("lease", 0)}

    def version(self, name):
        """How often it was written."""
        found = json.loads(self.etcd.ctl("get", "-w", "json", f"{self.prefix}/subnets/{name}"))
        return found["kvs"][0]["version"]

    def revision(self):
        return json.loads(self.etcd.ctl("get", "x", "-w", "json"))["header"]["revision"]

    def node(self, *endpoints, **options):
        return Node(endpoints or self.etcd.endpoints, self.prefix, self._directory, **options)


class Cable:
    """A way to one endpoint that can be cut; `endpoint` is its near end."""

    def __init__(self, endpoint):
        self._far = urlsplit(endpoint)
        self._tasks = set()
        self._whole = True

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.cut()
        self._server.close()

    def cut(self):
        """Ends all connections, and new ones at once."""
        self._whole = False
        for task in self._tasks:
            task.cancel()

    def mend(self):
        self._whole = True

    async def _carry(self, reader, writer):
        self._tasks.add(task := asyncio.current_task())
        try:
            if self._whole:
                far_reader, far_writer = await asyncio.open_connection(self._far.hostname, self._far.port)
                try:
                    await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
                finally:
                    far_writer.close()
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


async def _copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
