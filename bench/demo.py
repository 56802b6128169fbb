"""The demonstration: `python -m bench.demo [--backend B] [--nodes N] [--seconds S]`, or `make demo`.

Makes a laboratory, starts a daemon on every host, sends real traffic from pod to pod and from host to pod, and sets
what ping and iperf3 saw beside what was counted on the way, so that one sees the traffic went through the overlay: by
the daemons with udp, by the kernel's devices with vxlan and host-gw. `compare` sends the same through all three, one
after the other, and sets them side by side.
Owns the order of things and the words on the terminal; the work is done in `bench.lab`. Progress goes to stderr, the
table to stdout. Exit status: 0 all well, 1 something did not work, 2 usage, 130 Ctrl-C.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from bench import meter, trials
from bench.lab import rootless, traffic
from bench.lab.daemon import Carried
from bench.lab.table import count, render
from bench.lab.topology import HOSTS_MAX, Host, Lab
from bench.lab.wait import LabError, until
from bench.systems import THROUGH_DAEMON
from bench.systems.udp import Udp
from bench.trials import Seen, Trial

BACKENDS: dict[str, type[Udp]] = {"udp": Udp, **THROUGH_DAEMON}
COMPARE = "compare"
UNDERLAY_MTU = 1500
FAILED, LOST = "FAILED", "LOST"
Choose = Callable[[list[Host], int], Iterator[Trial]]
_began = time.monotonic()


def say(text: str) -> None:
    """One line of progress."""
    print(f"[{time.monotonic() - _began:5.1f} s] {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Done:
    """One trial and what became of it."""

    trial: Trial
    seen: Seen | None
    """None when the tool itself failed."""
    sent: Carried
    received: Carried
    overflowed: int = 0
    """Datagrams that the receiving program had no room for."""

    @property
    def well(self) -> bool:
        """Whether it passed."""
        return self.seen is not None and trials.verdict(self.seen, self.sent, self.received)

    @property
    def check(self) -> str:
        """In a word. What was lost on the way is no failure on a machine that has no time for it, and is not fine."""
        if self.seen is None or not self.well:
            return FAILED
        return LOST if trials.lost(self.seen, self.overflowed) else "ok"


@dataclass(frozen=True)
class Shown:
    """What became of one backend."""

    done: list[Done]
    complaint: str = ""
    """What went wrong beside the trials."""

    @property
    def failures(self) -> int:
        """Trials that did not pass."""
        return sum(not it.well for it in self.done)

    @property
    def well(self) -> bool:
        """Whether all of it worked."""
        return not self.failures and not self.complaint


def moved_by(kind: type[Udp]) -> str:
    """Who moves the packets and counts them: the daemon, or a device of the kernel's."""
    return "daemon" if kind is Udp else kind.device


def carried(system: Udp, host: Host) -> Carried:
    """What that host has sent and received through the overlay, as the one who moves the packets counts it."""
    if type(system) is Udp:
        return system.overlay.carried(host)
    link = meter.look(host.namespace).links[system.device]
    return Carried(link.tx_packets, link.tx_bytes, link.rx_packets, link.rx_bytes)


def attempt(system: Udp, trial: Trial) -> Done:
    """Runs one trial between two readings of the counters."""
    before = {host: carried(system, host) for host in (trial.sender, trial.receiver)}
    full = meter.look(trial.receiver.pod).socket_drops
    seen = None
    try:
        seen = trial.run()
    except LabError as error:
        say(f"  FAILED: {error}")
    sent, received = (carried(system, host) - before[host] for host in (trial.sender, trial.receiver))
    overflowed = meter.look(trial.receiver.pod).socket_drops - full
    if seen is not None and seen.lost:
        late = min(overflowed, seen.lost)
        say(f"  {seen.lost} of {seen.sent} datagrams lost, {late} of them by the receiving program")
    return Done(trial, seen, sent, received, overflowed)


def answers(here: Host, there: Host) -> Callable[[], bool]:
    """Whether one ping from pod to pod is answered."""
    return lambda: traffic.ping(here.pod, there.pod_address, count=1).received > 0


def measure(system: Udp, chosen: Iterable[Trial]) -> Iterator[Done]:
    """Runs every trial."""
    hosts = system.lab.hosts
    for host in hosts[1:]:  # The first packets may meet a daemon that has just begun; what follows is measured.
        until(answers(hosts[0], host), 10, f"pod {host.name} does not answer pod {hosts[0].name}")
    for trial in chosen:
        say(f"{trial.path}: {trial.name}")
        yield attempt(system, trial)


def run(backend: str, nodes: int, seconds: int, choose: Choose) -> Shown:
    """Sends the chosen traffic through a backend. Everything it made is gone when it returns or raises."""
    complaint = ""
    say(f"{backend}: building {nodes} hosts, each with a pod, in network namespaces")
    with Lab(nodes, mtu=UNDERLAY_MTU) as lab:
        system = BACKENDS[backend](lab)
        with system.overlay:
            say("starting one udp-backend on each host")
            system.prepare()
            done = list(measure(system, choose(lab.hosts, seconds)))
            balance = "their counters must balance, " if type(system) is Udp else ""
            say(f"stopping the daemons: {balance}their exit status must be 0")
            try:
                system.teardown()
            except LabError as error:
                complaint = str(error)
            say("taking everything down")
    return Shown(done, complaint)


def row(it: Done) -> list[str]:
    """A line of the table of one backend."""
    words = [it.trial.path, it.trial.name]
    if it.seen is None:
        return [*words, "-", "-", "-", "-", "-", "-", FAILED]
    arrived = f"{count(it.seen.octets)}B" if it.seen.octets else f"{it.seen.packets} answers"
    tx = f"{count(it.sent.tx_packets)} pkt {count(it.sent.tx_bytes)}B"
    rx = f"{count(it.received.rx_packets)} pkt {count(it.received.rx_bytes)}B"
    return [*words, it.seen.rate, it.seen.loss, it.seen.round_trip, arrived, tx, rx, it.check]


def show(backend: str, nodes: int, seconds: int) -> bool:
    """The demonstration of one backend; whether all of it worked."""
    shown = run(backend, nodes, seconds, trials.all_of_them)
    say("done")
    who = moved_by(BACKENDS[backend])
    header = ("path", "test", "Gbit/s", "loss", "round trip ms", "received", f"{who} tx", f"{who} rx", "check")
    print(f"\n{render(header, [row(it) for it in shown.done])}\n")
    if shown.failures:
        print(f"{shown.failures} of {len(shown.done)} tests FAILED: see the check column and the messages above.")
    if shown.complaint:
        print(f"FAILED at the end: {shown.complaint}")
    if shown.well:
        meaning = (
            "both daemons carried every byte that ping and iperf3 saw arrive, and account for every packet they took."
            if who == "daemon"
            else f"on both hosts the kernel's {who} carried every byte that ping and iperf3 saw arrive."
        )
        print(f"All {len(shown.done)} tests went through the overlay: {meaning}")
        if any(it.check == LOST for it in shown.done):
            print("LOST: datagrams were dropped on the way; an overlay that gets a processor in time drops none here.")
    return shown.well


def compare(nodes: int, seconds: int) -> bool:
    """The same traffic through every backend, side by side; whether all of it worked."""
    columns = {}
    for backend in BACKENDS:
        try:
            columns[backend] = run(backend, nodes, seconds, trials.one_way)
        except LabError as error:  # what the others can do is to be seen all the same
            columns[backend] = Shown([], str(error))
    say("done")
    print(f"\n{render(('path', 'test', *columns), side_by_side(columns))}\n")
    for backend, shown in columns.items():
        if not shown.well:
            print(f"{backend} FAILED: {shown.complaint or 'see the messages above.'}")
    well = all(shown.well for shown in columns.values())
    if well:
        print(
            "All tests went through the overlay, with each backend. One run each: `make bench` for figures to rely on."
        )
    return well


def side_by_side(columns: dict[str, Shown]) -> list[list[str]]:
    """A line for each trial and a column for each backend, under what tells the backends apart."""
    kinds = [BACKENDS[backend] for backend in columns]
    rows = [
        ["every host", "packets are moved by", *("udp-backend" if it is Udp else "the kernel" for it in kinds)],
        ["every host", "and counted by", *map(moved_by, kinds)],
        ["every pod", "MTU", *(str(UNDERLAY_MTU - it.overhead_bytes) for it in kinds)],
    ]
    whole = max((shown.done for shown in columns.values()), key=len)
    for number, first in enumerate(whole):
        cells = (brief(shown.done[number]) if shown.done else FAILED for shown in columns.values())
        rows.append([first.trial.path, first.trial.name, *cells])
    return rows


def brief(it: Done) -> str:
    """All figures of a trial in one cell."""
    if it.seen is None:
        return FAILED
    return it.seen.brief if it.check == "ok" else f"{it.seen.brief}, {it.check}"


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="make demo", description="Show the overlay at work in network namespaces.")
    parser.add_argument("--backend", choices=[*BACKENDS, COMPARE], default="udp", help="(default udp)")
    parser.add_argument("--nodes", type=int, default=2, help=f"hosts, 2 to {HOSTS_MAX} (default 2)")
    parser.add_argument("--seconds", type=int, default=5, help="duration of each iperf3 run (default 5)")
    options = parser.parse_args()
    try:
        rootless.become_able("run it as root: sudo make demo")
        if options.backend == COMPARE:
            return 0 if compare(options.nodes, options.seconds) else 1
        return 0 if show(options.backend, options.nodes, options.seconds) else 1
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("interrupted; everything is taken down")
        return 130


if __name__ == "__main__":
    sys.exit(main())
