"""What vanishes between a start's look at the kernel and the first repair is missed by nobody: it comes back at once.

A daemon says "ready", and only then its repairs begin to run; whoever waits for "ready" may be quicker.
"""

import asyncio
from unittest import mock

import pytest
from half_applied import Faults, Running, at_rest, lay_out, registry
from inside import in_namespace, ip, until

from udpbackend.backends import hostgw, udp, vxlan
from udpbackend.daemon import Daemon
from udpbackend.host.netlink import SETTLE_S

NEVER_S = 600.0
"""By the clock alone nothing is looked at: the kernel's word has to do."""
LATE_S = 5 * SETTLE_S
NETWORKS = {"-4": "10.5.", "-6": "fd05:"}


def overlay_routes(family):
    """Destination and device of those that a backend makes."""
    found = [it for it in ip("-j", family, "route") if it["dst"].startswith(NETWORKS[family]) and "dev" in it]
    return {(it["dst"], it["dev"]) for it in found if it.get("type") != "blackhole" and it.get("protocol") != "kernel"}


@pytest.mark.parametrize("family", ["-4", "-6"])
@pytest.mark.parametrize("backend", ["udp", "vxlan", "host-gw"])
def test_what_vanishes_before_the_first_repair_comes_back(tmp_path, monkeypatch, backend, family):
    monkeypatch.setattr(udp, "REPAIR_INTERVAL_S", NEVER_S)
    for module in (vxlan, hostgw):
        monkeypatch.setattr(module, "LOOK_S", NEVER_S)
    check(tmp_path, backend, family)


@in_namespace
async def check(directory, backend, family):
    tell = Daemon._tell_others
    deleted = set()

    async def late(daemon):
        """The last that a start does before its repairs run."""
        deleted.update(overlay_routes(family))
        for destination, device in deleted:
            ip(family, "route", "delete", destination, "dev", device)
        await asyncio.sleep(LATE_S)  # waits for nothing, is a busy host's pause: the kernel's word has passed by
        await tell(daemon)

    lay_out()
    await at_rest(directory)
    registry(directory, Faults(backend=backend))
    with mock.patch.object(Daemon, "_tell_others", late):
        daemon = Running(directory, Faults(backend=backend))
        assert await daemon.ready(), daemon.task
    await until(lambda: deleted <= overlay_routes(family))
    assert deleted, "there was nothing to delete"
    assert not await daemon.end()
