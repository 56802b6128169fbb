"""What the kernel counts: processor time, bytes and drops of links, and packets that found a socket full.

Owns the reading of /proc. Parsing is pure; the files of a network namespace are read by a thread inside it. Must not
know systems or workloads: it gives absolute counts, others take differences.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.lab.netns import Namespace

TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Link:
    """Counters of one interface since it was made."""

    rx_bytes: int
    rx_packets: int
    rx_drops: int
    tx_bytes: int
    tx_packets: int
    tx_drops: int


@dataclass(frozen=True)
class Seen:
    """One look into a network namespace."""

    links: dict[str, Link]
    socket_drops: int
    """Datagrams that found their socket's buffer full."""

    @property
    def drops(self) -> int:
        """All of them, of links and of sockets."""
        return self.socket_drops + sum(link.rx_drops + link.tx_drops for link in self.links.values())


def parse_links(text: str) -> dict[str, Link]:
    """Reads /proc/net/dev."""
    links = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        fields = rest.split()
        if colon and len(fields) >= 12:
            links[name.strip()] = Link(*(int(fields[place]) for place in (0, 1, 3, 8, 9, 11)))
    return links


def parse_socket_drops(text: str) -> int:
    """Reads RcvbufErrors of UDP from /proc/net/snmp: one line names the fields, the next one has the values."""
    names, values = (line.split() for line in text.splitlines() if line.startswith("Udp:"))
    return int(dict(zip(names, values, strict=True)).get("RcvbufErrors", 0))


def parse_machine_busy_s(text: str) -> float:
    """Reads /proc/stat: seconds that all processors together were neither idle nor taken away by a hypervisor."""
    user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in text.split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS_S


def parse_process_busy_s(text: str) -> float:
    """Reads /proc/PID/stat: user and system time of all threads, and of children that have ended."""
    fields = text.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS_S


def look(namespace: Namespace) -> Seen:
    """Reads a namespace's counters."""

    def inside() -> Seen:
        proc = Path("/proc/thread-self/net")
        return Seen(parse_links((proc / "dev").read_text()), parse_socket_drops((proc / "snmp").read_text()))

    return namespace.call(inside)


def machine_busy_s() -> float:
    """Processor time of the whole machine so far."""
    return parse_machine_busy_s(Path("/proc/stat").read_text())


def processes_busy_s(pids: Iterable[int]) -> float:
    """Processor time that these processes have used so far."""
    return sum(parse_process_busy_s(Path(f"/proc/{pid}/stat").read_text()) for pid in pids)


def resident_bytes(pid: int) -> int:
    """Memory a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
