"""A test bed: a laboratory of two hosts that one system has been set up in, and a meter on everything it may cost.

Owns the laboratory and the system for as long as the context lasts, the link between the hosts and readings of all
counters at one moment. Must not know workloads: who runs one takes a reading before and one after.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from bench import congestion, links, meter
from bench.lab.topology import Host, Lab
from bench.lab.wait import LabError, until
from bench.systems import Carried, System

ANSWER_S = 20.0
"""How long an overlay may take from its start to the first answer."""


@dataclass(frozen=True)
class Reading:
    """All counters at one moment."""

    machine_busy_s: float
    system_busy_s: float
    carried: tuple[Carried, Carried]
    """By the client's host and by the server's."""
    drops: int


@dataclass(frozen=True)
class Usage:
    """What happened between two readings."""

    machine_busy_s: float
    system_busy_s: float
    here: Carried
    there: Carried
    drops: int


class Bed:
    """Up and answering on all paths of the system when the context is entered, gone when it ends."""

    def __init__(self, system: type[System], mtu: int, cc: str) -> None:
        self.kind = system
        self.mtu = mtu
        self.cc = cc
        self.system: System
        self.offloads: dict[str, bool] = {}
        self._link = ""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.lab = stack.enter_context(Lab(2, mtu=self.mtu, congestion=self.cc))
            self.system = self.kind(self.lab)
            # Before it is prepared: what a preparation that failed has started is stopped, too.
            stack.callback(self.system.teardown)
            self.system.prepare()
            for path in self.system.paths:
                self._await_answer(path)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def hosts(self) -> tuple[Host, Host]:
        """The client's and the server's."""
        a, b = self.lab.hosts
        return a, b

    def set_link(self, name: str) -> None:
        """Makes the underlay behave so, at both ends."""
        if name == self._link:
            return
        for host in self.hosts:
            self.offloads = links.switch(host.namespace, "eth0", links.PROFILES[name])
        self._link = name

    def read(self) -> Reading:
        """Reads every counter."""
        a, b = self.hosts
        pods = sum(meter.look(host.pod).drops for host in (a, b))
        seen = {host.name: meter.look(host.namespace) for host in (a, b)}
        return Reading(
            machine_busy_s=meter.machine_busy_s(),
            system_busy_s=meter.processes_busy_s(self.system.pids()),
            carried=(self.system.carried(a, seen[a.name]), self.system.carried(b, seen[b.name])),
            drops=pods + sum(seen[host.name].drops + self.system.drops(host) for host in (a, b)),
        )

    def surroundings(self, path: str) -> dict[str, Any]:
        """What the figures of this bed are surrounded by, as read back now."""
        way = self.system.way(path)
        return {
            "congestion": sorted({congestion.in_force(way.client), congestion.in_force(way.server)}),
            "offloads": self.offloads,
            "devices": {name: self._device(name) for name in sorted({"eth0", self.system.device_of(self.hosts[0])})},
        }

    def _device(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.hosts[0].namespace.run("ip", "-json", "link", "show", "dev", name))[0]
        return {"mtu": found["mtu"], "qdisc": found["qdisc"], "txqueuelen": found.get("txqlen", 0)}

    def _await_answer(self, path: str) -> None:
        way = self.system.way(path)

        def answered() -> bool:
            said = way.client.run("ping", "-n", "-c1", "-W1", "-I", way.source, way.address, check=False)
            return " 1 received" in said

        try:
            until(answered, ANSWER_S, f"{self.system.name}: no answer from {way.address}")
        except LabError as error:
            raise LabError(f"{error} ({path})") from None


def usage(before: Reading, after: Reading) -> Usage:
    """The difference."""
    return Usage(
        machine_busy_s=after.machine_busy_s - before.machine_busy_s,
        system_busy_s=after.system_busy_s - before.system_busy_s,
        here=after.carried[0] - before.carried[0],
        there=after.carried[1] - before.carried[1],
        drops=after.drops - before.drops,
    )
