"""The workloads and the list of all of them."""

from bench.workloads import connect, iperf, loaded, no_loss, publish, sockperf
from bench.workloads.base import METRICS, Context, Metric, Outcome, Workload

ALL: tuple[Workload, ...] = (
    iperf.Tcp(1),
    iperf.Tcp(4),
    iperf.Tcp(16),
    iperf.Tcp(1, reverse=True),
    iperf.Udp(64),
    iperf.Udp(512),
    iperf.Udp(1400),
    *(no_loss.NoLoss(size) for size in (64, 512, 1400)),
    sockperf.Quiet(),
    loaded.AtRate(50),
    loaded.AtRate(90),
    loaded.UnderTcp(),
    connect.Connect(),
    publish.Publish(),
)
BY_NAME: dict[str, Workload] = {workload.name: workload for workload in ALL}
HEADLINES = {(workload.row, metric) for workload in ALL for metric in workload.headline}
"""Row and metric of the figures that are worth a line."""

__all__ = ["ALL", "BY_NAME", "HEADLINES", "METRICS", "Context", "Metric", "Outcome", "Workload"]
