"""Subnets are added, moved and removed under traffic: what is not touched loses nothing, nothing goes to a wrong node.

Hosts a, b and c run daemons, and a's pod sends to the other two all the while. A further subnet belongs now to one, now
to the other of two plain sockets, on host b and on host c, which stand in the place of peers. Every datagram says which
subnet it was meant for and has a number, so that the receivers tell afterwards who was sent what, and when it changed.
"""

import json
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import packets
import pytest
from counted import Tally
from probe import SO_RCVBUFFORCE

from bench.lab.daemon import PORT, Overlay
from bench.lab.topology import Host, Lab
from bench.lab.wait import until

MOVED, MOVED_SUBNET = "10.5.100.2", "10.5.100.0/24"
OWNERS = {"on-b": "192.168.77.102", "on-c": "192.168.77.103"}
TAKES_EFFECT_S = 2.0
"""A second is promised; the other is for the machine."""
TICK_S = 0.002
AT_A_TICK = {"b": 10, "c": 2, "moved": 2}
"""Datagrams every tick, by whom they are meant for: 5000 a second to b."""
LABEL = struct.Struct("!6sI")
MOVES, EDITS = 6, 12
INNER_HEADERS = 28
QUEUE = 5000
"""Of flannel0 and in packets: a second's worth, so that a busy machine loses nothing before we are asked."""


class Traffic:
    """Sends to all targets until stopped; `arrived` holds label and number of what each receiver got, in order."""

    def __init__(self, sender: socket.socket, targets: dict[str, str], receivers: dict[str, socket.socket]) -> None:
        self.sent = dict.fromkeys(targets, 0)
        self.arrived: dict[str, list[tuple[str, int]]] = {name: [] for name in receivers}
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(sender, targets), name="sender"),
            threading.Thread(target=self._receive, args=(receivers,), name="receivers"),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Sends no more; what is on the way still arrives, for a second after the last."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def reaches(self, receiver: str) -> float:
        """Waits until something meant for the moved subnet and sent from now on arrives; the seconds it took."""
        began, first, seen = time.monotonic(), self.sent["moved"], len(self.arrived[receiver])

        def there() -> bool:
            return any(number >= first for _, number in self.arrived[receiver][seen:])

        until(there, TAKES_EFFECT_S, f"the moved subnet is not {receiver}")
        return time.monotonic() - began

    def _send(self, sender: socket.socket, targets: dict[str, str]) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            for name, count in AT_A_TICK.items():
                for _ in range(count):
                    sender.sendto(LABEL.pack(name.encode(), self.sent[name]), (targets[name], PORT))
                    self.sent[name] += 1
            due += TICK_S

    def _receive(self, receivers: dict[str, socket.socket]) -> None:
        names = {made: name for name, made in receivers.items()}
        while True:
            ready = select.select(list(names), [], [], 1)[0]
            if not ready and self._over.is_set():
                return
            for made in ready:
                label, number = LABEL.unpack(made.recv(65535)[-LABEL.size :])
                self.arrived[names[made]].append((label.rstrip(b"\0").decode(), number))


class Registry:
    """The file that all daemons follow."""

    def __init__(self, overlay: Overlay) -> None:
        self._path = overlay.lab.directory / "subnets.json"
        self._document = json.loads(self._path.read_text())
        self._hosts = list(self._document["Nodes"])
        self._dice = random.Random(1)  # noqa: S311  (not for secrets)

    def write(self, owner: str | None) -> None:
        """Replaces it: the hosts, the owner of the moved subnet, and any of forty other nodes."""
        others = [
            {"Name": f"other-{i}", "PublicIP": f"192.168.78.{i}", "Subnet": f"10.5.{i}.0/24"}
            for i in range(110, 150)
            if self._dice.random() < 0.5
        ]
        moved = [{"Name": "moved", "PublicIP": OWNERS[owner], "Subnet": MOVED_SUBNET}] if owner else []
        nodes = self._hosts + moved + others
        self._dice.shuffle(nodes)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({**self._document, "Nodes": nodes}))
        fresh.rename(self._path)


@contextmanager
def flowing(a: Host, b: Host, c: Host) -> Iterator[Traffic]:
    with ExitStack() as stack:
        sender = stack.enter_context(packets.udp_socket(a.pod, a.pod_address))
        receivers = {
            name: stack.enter_context(packets.udp_socket(namespace, address, PORT))
            for name, namespace, address in (
                ("b", b.pod, b.pod_address),
                ("c", c.pod, c.pod_address),
                ("on-b", b.namespace, OWNERS["on-b"]),
                ("on-c", c.namespace, OWNERS["on-c"]),
            )
        }
        for made in receivers.values():
            made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        traffic = Traffic(sender, {"b": b.pod_address, "c": c.pod_address, "moved": MOVED}, receivers)
        try:
            yield traffic
        finally:
            traffic.stop()


@pytest.fixture
def overlay(able):
    with Lab(3) as lab, Overlay(lab) as overlay:
        for name, host in (("on-b", lab.host("b")), ("on-c", lab.host("c"))):
            host.namespace.ip(f"address add {OWNERS[name]}/24 dev eth0")
        overlay.start_all()
        lab.host("a").namespace.ip(f"link set flannel0 txqueuelen {QUEUE}")
        yield overlay
        overlay.stop_all()


def test_only_what_is_edited_changes(overlay, record_property):
    registry, tally = Registry(overlay), Tally(overlay, overlay.lab.host("a"))
    delays: dict[str, list[float]] = {"move": [], "remove": [], "add": []}
    owner = "on-b"

    def edit_others():
        revision = tally.status()["registry"]["revision"]
        registry.write(owner)
        until(lambda: tally.status()["registry"]["revision"] > revision, TAKES_EFFECT_S, "the edit is not seen")

    with flowing(*overlay.lab.hosts) as traffic:
        registry.write(owner)
        traffic.reaches(owner)
        first = traffic.sent["moved"]
        for _ in range(MOVES):
            edit_others()
            owner = "on-c" if owner == "on-b" else "on-b"
            registry.write(owner)
            delays["move"].append(traffic.reaches(owner))
        moved = traffic.sent["moved"]

        tally.mark()
        registry.write(None)
        delays["remove"].append(elapsed_until(lambda: tally.grown("tx_drop_no_route"), "the subnet is not removed"))
        for _ in range(EDITS - MOVES):
            registry.write(None)
        registry.write(owner)
        delays["add"].append(traffic.reaches(owner))
        edit_others()

    record_property("seconds_until_an_edit_took_effect", delays)
    assert_nothing_lost(traffic)
    assert_right_owner(traffic, first, moved)
    drops = {name: count for name, count in tally.grown().items() if "drop" in name}
    assert drops.keys() <= {"tx_drop_no_route"}


def elapsed_until(condition, what):
    began = time.monotonic()
    until(condition, TAKES_EFFECT_S, what)
    return time.monotonic() - began


def assert_nothing_lost(traffic):
    """To the subnets that nobody touched: each datagram once, in order, and only there."""
    for name in ("b", "c"):
        assert {label for label, _ in traffic.arrived[name]} == {name}
        assert [number for _, number in traffic.arrived[name]] == list(range(traffic.sent[name]))


def assert_right_owner(traffic, first, moved):
    """While the moved subnet had an owner, none was lost either; and each move was a clean cut in their sequence."""
    owners: dict[int, str] = {}
    for name in OWNERS:
        assert {label for label, _ in traffic.arrived[name]} == {"moved"}
        for _, number in traffic.arrived[name]:
            assert number not in owners, "a datagram arrived twice"
            owners[number] = name
    assert [number for number in range(first, moved) if number not in owners] == []
    order = [owners[number] for number in sorted(owners)]
    assert sum(one != other for one, other in pairwise(order)) == MOVES
    gaps = [(one, other) for one, other in pairwise(sorted(owners)) if other != one + 1]
    assert len(gaps) == 1, "removed once"
