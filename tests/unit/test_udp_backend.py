"""Publications: the thread at one is waited for by a stop, and the last one counts, whoever has published before."""

import asyncio
import os
import threading
from ipaddress import IPv4Address
from unittest import mock

import uvloop

from udpbackend.backends.backend import Context
from udpbackend.backends.udp import UdpBackend
from udpbackend.dataplane.estate import Record, newest
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


def made():
    """A backend that was not started."""
    return UdpBackend(
        Context(config=CONFIG, endpoint=ENDPOINT, netlink=None, settings=Settings(), published=lambda _: None)
    )


def test_the_table_of_who_goes_on_after_a_failed_handover_is_the_newest():
    """A successor that had published before it died has written into the same pair of memfds."""

    async def check():
        backend = made()
        backend._device = mock.Mock()
        await backend._publishing.acquire()
        backend._handing_over = True
        successor = Record({name: os.dup(fd) for name, fd in backend._record.fds.items()})
        for _ in range(2):
            successor.write(backend._header(), b"the successor's")
        successor.close()
        await backend.resume()
        backend._install(mock.Mock(), bytearray(b"ours"), backend._header())
        assert newest(backend._record.fds).routes == b"ours"
        backend._record.close()

    with mock.patch.object(UdpBackend, "_fds", return_value={}):
        uvloop.run(check())


def test_a_stop_waits_for_the_publication_under_way():
    async def check():
        backend = made()
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
