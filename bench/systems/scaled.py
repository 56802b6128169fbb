"""Our daemon with many subnets in its table, which tells what a large cluster costs.

Owns the made-up nodes: they have subnets and public addresses but nobody runs them, so the table is as large as in
life and all traffic is still between the two hosts. The registry can be changed while traffic flows.
"""

import http.client
import itertools
import json
import re
import socket
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import ClassVar

from bench.lab.daemon import Overlay
from bench.lab.topology import Host
from bench.lab.wait import LabError, until
from bench.systems.udp import Udp

NETWORK = "10.0.0.0/8"
SUBNETS_MAX = 65536
"""Of 256 addresses each, in NETWORK."""
PEERS_FROM = IPv4Address("172.16.0.1")
SIZES = (1, 256, 5000, SUBNETS_MAX)
PUBLISHED_S = 30.0
"""What an edit of the largest registry may take to be in force on every host of a busy machine."""
_PUBLISHED = re.compile(r"^udpbackend_route_publish_seconds_(count|sum) (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Published:
    """Publications of route tables: how many, and how long all of them took."""

    count: int
    seconds: float


def parse_published(text: str) -> Published:
    """Reads the daemon's metrics; LabError when they lack it."""
    found = dict(_PUBLISHED.findall(text))
    if len(found) != 2:
        raise LabError("the daemon's metrics say nothing of publications")
    return Published(int(float(found["count"])), float(found["sum"]))


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        """Connects to the path instead of the host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Scaled(Udp):
    """The base of the four below."""

    subnets: ClassVar[int]
    against = "udp-subnets-1"

    def make_overlay(self) -> Overlay:
        """With nodes that are nothing but entries; two of the subnets are the laboratory's own."""
        taken = {host.subnet for host in self.lab.hosts}
        free = (text for number in range(SUBNETS_MAX) if (text := subnet(number)) not in taken)
        count = min(self.subnets - 1, SUBNETS_MAX - len(taken))
        others = [
            {"Name": f"n{number}", "PublicIP": str(PEERS_FROM + number), "Subnet": text}
            for number, text in enumerate(itertools.islice(free, count))
        ]
        return Overlay(self.lab, network=NETWORK, others=others)

    def drops(self, host: Host) -> int:
        """Not asked: a status of many thousand peers would itself disturb what is measured."""
        del host
        return 0

    def teardown(self) -> None:
        """Stops the daemons; whether they account for every packet is asked where the table is small."""
        for host in self.overlay.running:
            self.overlay.stop(host)

    def change(self) -> None:
        """Edits the registry: a node gets another name, for which a whole new table is published on every host.

        Returns when that has happened: a daemon that is busy would see the next edit together with this one.
        """
        before = {host.name: self.publications_logged(host) for host in self.lab.hosts}
        path = self.overlay.registry
        document = json.loads(path.read_text())
        document["Nodes"][-1]["Name"] += "x"
        fresh = path.with_name("subnets.new")
        fresh.write_text(json.dumps(document) + "\n")
        fresh.replace(path)
        for host in self.lab.hosts:
            until(
                partial(lambda host: self.publications_logged(host) > before[host.name], host),
                PUBLISHED_S,
                f"host {host.name}: no new route table",
            )

    def published(self, host: Host) -> Published:
        """What the daemon says of its publications so far."""
        connection = UnixConnection(self.overlay.run_directory(host) / "subnet.sock")
        try:
            connection.request("GET", "/metrics")
            return parse_published(connection.getresponse().read().decode())
        finally:
            connection.close()

    def publications_logged(self, host: Host) -> int:
        """How many it has logged, one for each change of the registry; asking so disturbs nothing."""
        return self.overlay.process(host).stderr.read_bytes().count(b"routes published")


def subnet(number: int) -> str:
    """The so many-th of NETWORK."""
    return f"10.{number >> 8}.{number & 255}.0/24"


def _sized(count: int) -> type[Scaled]:
    class Sized(Scaled):
        name = f"udp-subnets-{count}"
        what = f"udp-backend with {count:,} subnet{'s' * (count > 1)} to route to"
        subnets = count

    return Sized


SCALED: tuple[type[Scaled], ...] = tuple(_sized(count) for count in SIZES)
