"""flannel0 is deleted once more while the daemon makes it again: it tries on, and does not end."""

from unittest import mock

import pytest
from half_applied import Faults, Running, at_rest, lay_out, registry
from inside import in_namespace, ip, until

from udpbackend.backends.udp_device import Device
from udpbackend.dataplane.tun import TunQueue

STEPS = {"before it outlives the process": (TunQueue, "persist"), "before its queue is opened": (Device, "start")}


@pytest.mark.parametrize("step", STEPS)
def test_it_is_made_again_in_the_end(tmp_path, step):
    check(tmp_path, *STEPS[step])


@in_namespace
async def check(directory, owner, name):
    lay_out()
    await at_rest(directory)
    registry(directory, Faults(backend="udp"))
    daemon = Running(directory, Faults(backend="udp"))
    assert await daemon.ready(), daemon.task
    step, deleted = getattr(owner, name), []

    def late(it):
        if not deleted:
            deleted.append(ip("link", "delete", "flannel0"))
        return step(it)

    with mock.patch.object(owner, name, late):
        ip("link", "delete", "flannel0")
        await until(lambda: deleted)
        await until(lambda: daemon.task.done() or "flannel0" in ip("route"))
    assert not daemon.task.done(), daemon.task
    assert await daemon.ready()
    assert not await daemon.end()
