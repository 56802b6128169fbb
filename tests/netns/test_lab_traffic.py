"""What the laboratory's own programs lose is not to be taken for what an overlay loses."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.lab import traffic
from bench.lab.topology import Lab
from bench.lab.wait import until

DEADLINE_S = 10.0

pytestmark = pytest.mark.usefixtures("able")


def test_an_urgent_receiver_has_the_largest_buffer_that_the_kernel_grants():
    """Beside a program that computes it waits for a processor for tens of milliseconds; usual buffers hold two."""
    with Lab(2) as lab, ThreadPoolExecutor(1) as pool:
        a, b = lab.hosts
        way = traffic.Way(a.namespace, b.namespace, b.address)
        running = pool.submit(traffic.udp, way, seconds=3, rate="10M", urgent=True)

        def has_it():
            buffers = re.findall(r"rb(\d+)", b.namespace.run("ss", "-Huanm"))
            return str(2 * traffic.window_bytes()) in buffers  # the kernel doubles what it grants

        until(has_it, DEADLINE_S, "no socket with such a buffer")
        assert running.result().lost == 0
