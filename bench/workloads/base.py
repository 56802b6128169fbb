"""What a workload is: something that sends traffic along a way for some seconds and says what arrived.

Owns the metrics: their names, units and which direction is better. Must not know systems or links.
"""

from dataclasses import dataclass, field
from typing import Protocol

from bench.lab.traffic import Way


@dataclass(frozen=True)
class Metric:
    """One kind of figure."""

    name: str
    unit: str
    meaning: str
    more_is_better: bool = False


METRICS = {
    metric.name: metric
    for metric in (
        Metric("throughput_bps", "bit/s", "payload that arrived", more_is_better=True),
        Metric("delivered_pps", "packets/s", "datagrams that arrived, the sender being unlimited", more_is_better=True),
        Metric("no_loss_pps", "packets/s", "highest rate found at which less than 0.1 % is lost", more_is_better=True),
        Metric(
            "connects_per_s", "1/s", "TCP connections made, used for one byte each way, and closed", more_is_better=True
        ),
        Metric("latency_p25_s", "s", "half a round trip, a quarter of them are quicker"),
        Metric("latency_p50_s", "s", "half a round trip, median"),
        Metric("latency_p75_s", "s", "half a round trip, a quarter of them are slower"),
        Metric("latency_p90_s", "s", "half a round trip, one of ten is slower"),
        Metric("latency_p99_s", "s", "half a round trip, one of a hundred is slower"),
        Metric("latency_p999_s", "s", "half a round trip, one of a thousand is slower"),
        Metric("load_pps", "packets/s", "datagrams per second sent beside the measurement", more_is_better=True),
        Metric("load_bps", "bit/s", "TCP payload that arrived beside the measurement", more_is_better=True),
        Metric("cores_per_gbps", "cores/(Gb/s)", "processors busy in the whole machine, both ends, per Gb/s"),
        Metric("daemon_cores_per_gbps", "cores/(Gb/s)", "processors busy in the system's processes, per Gb/s"),
        Metric("cpu_ns_per_packet", "ns", "processor time of the whole machine per datagram delivered"),
        Metric("daemon_cpu_ns_per_packet", "ns", "processor time of the system's processes per datagram"),
        Metric("retransmits", "segments", "TCP segments sent again"),
        Metric("drops", "packets", "dropped by links, sockets and the system itself"),
        Metric("loss_ratio", "", "datagrams lost, the sender being unlimited"),
        Metric("publish_s", "s", "to build and publish the route table"),
        Metric("gap_s", "s", "longest pause in a steady stream while a new table is published"),
        Metric("gap_idle_s", "s", "longest pause in the same stream when nothing happens"),
        Metric("rss_bytes", "B", "memory of one daemon"),
    )
}


@dataclass
class Outcome:
    """What one run of a workload came to. Bytes are payload, so whoever carried them has counted more."""

    values: dict[str, float]
    forth_bytes: int
    """That certainly went from the client's side to the server's."""
    back_bytes: int = 0
    packets: int = 0
    """Datagrams that arrived, where these are what is paid for."""
    bits: float = 0.0
    """That arrived, where these are what is paid for."""
    whole: bool = True
    """Whether costs and drops of the run belong to its figures; not when it was made of several different parts."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Context:
    """What a workload may know beside the way."""

    seconds: int
    system: object = None
    """The system under test, for the few workloads that only one kind of system knows."""
    no_loss_pps: dict[int, list[float]] = field(default_factory=dict)
    """By payload size, as found for this system in the same place earlier in the same run."""


class ForAll:
    """What suits every system; the base of most workloads."""

    def suits(self, system: str) -> bool:
        """It does."""
        del system
        return True


class Workload(Protocol):
    """One kind of traffic."""

    @property
    def name(self) -> str:
        """As it is chosen."""

    @property
    def row(self) -> str:
        """As it stands in the document; mostly the same."""

    @property
    def what(self) -> str:
        """One line for --help and the page."""

    @property
    def headline(self) -> tuple[str, ...]:
        """The metrics whose ratio to the reference is worth a line in the terminal."""

    def suits(self, system: str) -> bool:
        """Whether that system can be asked at all."""

    def cost_s(self, seconds: int) -> float:
        """How long a run takes about."""

    def run(self, way: Way, context: Context) -> Outcome:
        """Sends, waits and reads."""
