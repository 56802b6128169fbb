"""The demonstration: `python -m bench.demo [--nodes N] [--seconds S]`, or `make demo`.

Makes a laboratory, starts a daemon on every host, sends real traffic from pod to pod and from host to pod, and sets
what ping and iperf3 saw beside what the daemons counted, so that one sees the traffic went through the overlay.
Owns the order of things and the words on the terminal; the work is done in `bench.lab`. Progress goes to stderr, the
table to stdout. Exit status: 0 all well, 1 something did not work, 130 Ctrl-C.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.lab import parse, rootless, traffic
from bench.lab.daemon import Carried, Overlay
from bench.lab.netns import Namespace
from bench.lab.table import count, render
from bench.lab.topology import HOSTS_MAX, Host, Lab
from bench.lab.wait import LabError, until

PINGS = 10
UDP_RATE = "500M"
UDP_OFFERED = "500 Mbit/s"
HEADER = ("path", "test", "Gbit/s", "loss", "round trip ms", "received", "daemon tx", "daemon rx", "check")
MEANING = "both daemons carried every byte that ping and iperf3 saw arrive, and account for every packet they took."
_began = time.monotonic()


def say(text: str) -> None:
    """One line of progress."""
    print(f"[{time.monotonic() - _began:5.1f} s] {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Seen:
    """What one test measured from outside: the figures for the table and what the daemons must have carried."""

    rate: str
    loss: str
    round_trip: str
    packets: int
    """That arrived, as seen by ping; 0 where the tool counts bytes."""
    octets: int
    """That arrived, as seen by iperf3: payload bytes, so the daemons carry more."""
    well: bool
    """Whether the tool is content: ping over a quiet link loses nothing, and of iperf3 something arrives."""


@dataclass(frozen=True)
class Trial:
    """One line of the table: packets go from `sender` to `receiver`."""

    path: str
    name: str
    sender: Host
    receiver: Host
    run: Callable[[], Seen]


def from_ping(result: parse.Ping) -> Seen:
    """A line for ping; without any answer there is no round trip."""
    times = (result.rtt_min_ms, result.rtt_avg_ms, result.rtt_max_ms)
    trip = "-" if None in times else "/".join(f"{ms:.2f}" for ms in times)
    return Seen("-", f"{result.loss_percent:.0f} %", trip, result.received, 0, result.received == result.sent)


def from_tcp(result: parse.Tcp) -> Seen:
    """A line for iperf3 over TCP, which itself repairs every loss."""
    return Seen(f"{result.gbit_s:.2f}", "-", "-", 0, result.received_bytes, result.received_bytes > 0)


def from_udp(result: parse.Udp) -> Seen:
    """A line for iperf3 over UDP."""
    return Seen(
        f"{result.gbit_s:.2f}", f"{result.loss_percent:.2f} %", "-", 0, result.received_bytes, result.received_bytes > 0
    )


def pings(here: Host, there: Host) -> Iterator[Trial]:
    """Pod to pod and host to pod, in one direction."""

    def send(source: Namespace) -> Callable[[], Seen]:
        return lambda: from_ping(traffic.ping(source, there.pod_address, count=PINGS))

    yield Trial(f"pod {here.name} -> pod {there.name}", "ping", here, there, send(here.pod))
    yield Trial(f"host {here.name} -> pod {there.name}", "ping", here, there, send(here.namespace))


def streams(here: Host, there: Host, seconds: int) -> Iterator[Trial]:
    """TCP both ways and UDP, pod to pod."""
    way = traffic.Way(here.pod, there.pod, there.pod_address)
    forth, back = f"pod {here.name} -> pod {there.name}", f"pod {there.name} -> pod {here.name}"
    yield Trial(forth, "TCP", here, there, lambda: from_tcp(traffic.tcp(way, seconds=seconds)))
    yield Trial(back, "TCP", there, here, lambda: from_tcp(traffic.tcp(way, seconds=seconds, reverse=True)))
    udp = f"UDP {UDP_OFFERED}"
    yield Trial(forth, udp, here, there, lambda: from_udp(traffic.udp(way, seconds=seconds, rate=UDP_RATE)))


def plan(hosts: list[Host], seconds: int) -> Iterator[Trial]:
    """Pings between neighbours on a ring, both ways; iperf3 between the first host and the last."""
    ring = list(zip(hosts, [*hosts[1:], hosts[0]], strict=True))
    for here, there in ring if len(hosts) > 2 else ring[:1]:
        yield from pings(here, there)
        yield from pings(there, here)
    yield from streams(hosts[0], hosts[-1], seconds)


def verdict(seen: Seen, sent: Carried, received: Carried) -> bool:
    """Whether the tool is content and both daemons carried at least what it saw arrive."""
    return (
        seen.well
        and min(sent.tx_packets, received.rx_packets) >= max(seen.packets, 1)
        and min(sent.tx_bytes, received.rx_bytes) >= max(seen.octets, 1)
    )


def attempt(overlay: Overlay, trial: Trial) -> tuple[list[str], bool]:
    """Runs one trial between two readings of the daemons' counters: a row of the table, and whether it is well."""
    before = {host: overlay.carried(host) for host in (trial.sender, trial.receiver)}
    try:
        seen = trial.run()
    except LabError as error:
        say(f"  FAILED: {error}")
        return [trial.path, trial.name, "-", "-", "-", "-", "-", "-", "FAILED"], False
    sent = overlay.carried(trial.sender) - before[trial.sender]
    got = overlay.carried(trial.receiver) - before[trial.receiver]
    well = verdict(seen, sent, got)
    arrived = f"{count(seen.octets)}B" if seen.octets else f"{seen.packets} answers"
    tx = f"{count(sent.tx_packets)} pkt {count(sent.tx_bytes)}B"
    rx = f"{count(got.rx_packets)} pkt {count(got.rx_bytes)}B"
    row = [trial.path, trial.name, seen.rate, seen.loss, seen.round_trip, arrived, tx, rx, "ok" if well else "FAILED"]
    return row, well


def answers(here: Host, there: Host) -> Callable[[], bool]:
    """Whether one ping from pod to pod is answered."""
    return lambda: traffic.ping(here.pod, there.pod_address, count=1).received > 0


def measure(overlay: Overlay, seconds: int) -> tuple[list[list[str]], int]:
    """Runs every trial: the rows of the table, and how many failed."""
    hosts = overlay.lab.hosts
    for host in hosts[1:]:  # The first packets may meet a daemon that has just begun; what follows is measured.
        until(answers(hosts[0], host), 10, f"pod {host.name} does not answer pod {hosts[0].name}")
    rows, failures = [], 0
    for trial in plan(hosts, seconds):
        say(f"{trial.path}: {trial.name}")
        row, well = attempt(overlay, trial)
        rows.append(row)
        failures += not well
    return rows, failures


def show(nodes: int, seconds: int) -> bool:
    """The whole demonstration; whether all of it worked. Everything it made is gone when it returns or raises."""
    complaint = ""
    say(f"building {nodes} hosts, each with a pod, in network namespaces")
    with Lab(nodes) as lab, Overlay(lab) as overlay:
        say("starting one udp-backend on each host")
        overlay.start_all()
        rows, failures = measure(overlay, seconds)
        say("stopping the daemons: their counters must balance, their exit status must be 0")
        try:
            overlay.stop_all()
        except LabError as error:
            complaint = str(error)
        say("taking everything down")
    say("done")
    print(f"\n{render(HEADER, rows)}\n")
    if failures:
        print(f"{failures} of {len(rows)} tests FAILED: see the check column and the messages above.")
    if complaint:
        print(f"FAILED at the end: {complaint}")
    if not failures and not complaint:
        print(f"All {len(rows)} tests went through the overlay: {MEANING}")
    return not failures and not complaint


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="make demo", description="Show the overlay at work in network namespaces.")
    parser.add_argument("--nodes", type=int, default=2, help=f"hosts, 2 to {HOSTS_MAX} (default 2)")
    parser.add_argument("--seconds", type=int, default=5, help="duration of each iperf3 run (default 5)")
    options = parser.parse_args()
    try:
        rootless.become_able("run it as root: sudo make demo")
        return 0 if show(options.nodes, options.seconds) else 1
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("interrupted; everything is taken down")
        return 130


if __name__ == "__main__":
    sys.exit(main())
