"""A stop in the middle of a publication: the thread that publishes is waited for before what it works on is freed."""

import asyncio
import threading
from ipaddress import IPv4Address

import uvloop

from udpbackend.backends.backend import Context
from udpbackend.backends.udp import UdpBackend
from udpbackend.model import BackendConfig, Endpoint, NetworkConfig, Prefix, Snapshot
from udpbackend.settings import Settings

NETWORK = Prefix.parse("10.5.0.0/16")
CONFIG = NetworkConfig(
    NETWORK, 24, IPv4Address("10.5.1.0"), IPv4Address("10.5.255.0"), BackendConfig("udp", {"Type": "udp"})
)
ENDPOINT = Endpoint("eth0", 2, 1500, IPv4Address("192.0.2.1"), IPv4Address("192.0.2.1"))


class SlowDataplane:
    """Notes whether it was closed while it published."""

    def __init__(self):
        self.began, self.go_on = threading.Event(), threading.Event()
        self.publishing = False
        self.closed_while_publishing = None

    def publish(self, _table):
        self.publishing = True
        self.began.set()
        self.go_on.wait(10)
        self.publishing = False

    def close(self):
        self.closed_while_publishing = self.publishing


def test_a_stop_waits_for_the_publication_under_way():
    async def check():
        backend = UdpBackend(
            Context(config=CONFIG, endpoint=ENDPOINT, netlink=None, settings=Settings(), published=lambda _: None)
        )
        backend._dataplane = plane = SlowDataplane()
        applying = asyncio.create_task(backend.apply(Snapshot((), 1)))
        await asyncio.to_thread(plane.began.wait, 10)
        applying.cancel()
        await asyncio.gather(applying, return_exceptions=True)
        stopping = asyncio.create_task(backend.stop())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not stopping.done()
        plane.go_on.set()
        await stopping
        assert plane.closed_while_publishing is False

    uvloop.run(check())
