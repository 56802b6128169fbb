"""Several queues: packets flow through all of them, and no flow is reordered by that.

Many UDP flows, each between addresses of its own, are sent at once; every receiver sees its flow's numbers ascend.
"""

import os
import select
import socket
import struct
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import packets
import pytest
from probe import SO_RCVBUFFORCE

from bench.lab.daemon import Overlay
from bench.lab.topology import Lab
from bench.lab.wait import until

FLOWS = 8
CPUS = sorted(os.sched_getaffinity(0))
NUMBER = struct.Struct("!II")
SECONDS = 2.0
ENOUGH, DEADLINE_S = 1000, 60.0
PORT = 9000


@pytest.fixture(scope="module")
def overlay(able):
    with (
        Lab(2) as lab,
        Overlay(lab, "--workers", "2", "--worker-cpus", f"{CPUS[-1]},{CPUS[0]}", "--source-ports", "3") as made,
    ):
        made.start_all()
        yield made
        made.stop_all()


def test_threads_are_bound_to_their_cores(overlay):
    tasks = Path(f"/proc/{overlay.process(overlay.lab.hosts[0]).pid}/task")

    def bound() -> bool:
        found = {(it / "comm").read_text().strip(): os.sched_getaffinity(int(it.name)) for it in tasks.iterdir()}
        return {name: cpus for name, cpus in found.items() if name.startswith("udpb-")} == {
            "udpb-0": {CPUS[-1]},
            "udpb-1": {CPUS[0]},
        }

    until(bound, DEADLINE_S, "not bound")  # each thread does it itself, and nobody waits for that


def threads_cpu(pid: int) -> dict[str, int]:
    """Ticks of CPU by name of thread."""
    ticks = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, rest = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
        fields = rest.split()
        ticks[name] = ticks.get(name, 0) + int(fields[11]) + int(fields[12])
    return ticks


def send(senders: list[socket.socket], address: str, over: threading.Event) -> None:
    number = 0
    while not over.is_set():
        for flow, sender in enumerate(senders):
            sender.sendto(NUMBER.pack(flow, number), (address, PORT + flow))
        number += 1
        if number % 20 == 0:
            time.sleep(0.001)  # a pace, not a wait: bursts of 160 packets


def receive(receivers: list[socket.socket], arrived: list[list[int]], over: threading.Event) -> None:
    while True:
        ready = select.select(receivers, [], [], 0.5)[0]
        if not ready and over.is_set():
            return
        for made in ready:
            flow, number = NUMBER.unpack(made.recv(100))
            arrived[flow].append(number)


def test_no_flow_is_reordered(overlay):
    a, b = overlay.lab.hosts
    with ExitStack() as stack:
        sources = [f"10.5.1.{20 + i}" for i in range(FLOWS)]
        for source in sources:
            a.pod.ip(f"address add {source}/24 dev eth0")
        receivers = [stack.enter_context(packets.udp_socket(b.pod, b.pod_address, PORT + i)) for i in range(FLOWS)]
        for made in receivers:
            made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        senders = [stack.enter_context(packets.udp_socket(a.pod, source)) for source in sources]
        arrived: list[list[int]] = [[] for _ in range(FLOWS)]
        over = threading.Event()
        before = threads_cpu(overlay.process(a).pid)
        threads = [
            threading.Thread(target=send, args=(senders, b.pod_address, over)),
            threading.Thread(target=receive, args=(receivers, arrived, over)),
        ]
        for thread in threads:
            thread.start()
        over.wait(SECONDS)
        try:
            until(lambda: min(map(len, arrived)) > ENOUGH, DEADLINE_S, "too little arrives")
        finally:
            over.set()
        for thread in threads:
            thread.join()
        after = threads_cpu(overlay.process(a).pid)
    for numbers in arrived:
        assert numbers == sorted(numbers)
    # Both threads of the sending daemon have worked: the flows' addresses are spread over its queues.
    assert {name for name in after if after[name] > before.get(name, 0)} >= {"udpb-0", "udpb-1"}


def test_status_and_stop_work_as_ever(overlay):
    for host in overlay.lab.hosts:
        status = overlay.status(host)
        assert status["verdict"]["state"] == "ready"
        assert status["law"]["tx"]["unexplained"] == 0
