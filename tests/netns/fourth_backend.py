"""A backend that the product does not have, as somebody would write one more: this file, and its line in BACKENDS.

It has a device of a kind that no other backend makes and leads packets to the peers as host-gw does. Run as a program
it is `udp-backend` with that backend added.
"""

import sys
from contextlib import nullcontext
from functools import partial

from udpbackend.backends import backend as registered
from udpbackend.backends.backend import BackendFacts, KernelDrop, Overlay
from udpbackend.backends.keeper import Keeper, Look
from udpbackend.backends.peers import Own, others
from udpbackend.host import rtnetlink
from udpbackend.host.bulk import Bulk
from udpbackend.host.entries import Route
from udpbackend.host.leftovers import Which, remove_leftovers
from udpbackend.host.mark import ALIAS
from udpbackend.host.reconcile import Scope, Way, reconcile
from udpbackend.model import Attributes

KIND, DEVICE, MTU = "fourth", "flannel-fourth", 1234
DROP = KernelDrop("fourth_dropped", "tx", "packets the kernel dropped for a reason of this backend's", "none")


class FourthBackend:
    """Everything the protocol asks for."""

    port, mtu = None, MTU

    def __init__(self, context):
        self._config, self._endpoint, self._netlink = context.config, context.endpoint, context.netlink
        self._keeper = Keeper(self._netlink, self._look, 2.0)

    async def prepare(self, _held):
        return Attributes(self._endpoint.public_ip, backend_type=KIND, backend_data=b'{"Said":4}')

    async def start(self, lease, snapshot):
        self._own, self._peers = Own(lease.subnet, lease.public_ip), ()
        await self._netlink.call(self._make)
        self._follow(snapshot)
        await self._keeper.start()

    async def apply(self, snapshot):
        self._follow(snapshot)
        await self._keeper.follow()

    async def run(self):
        await self._keeper.run()

    async def stop(self):
        """The device and the routes stay."""

    async def remove(self):
        await remove_leftovers(self._netlink, Which(self._config.networks))

    undo = remove

    def others(self):
        return Which(self._config.networks, keep=[DEVICE], routes=False)

    def undisturbed(self):
        return nullcontext()

    async def facts(self):
        overlay = Overlay(device=DEVICE, address=self._own.subnet.base, mtu=MTU)
        problems = self._keeper.problems
        kernel = await self.kernel_drops()
        return BackendFacts(overlay=overlay, routes=len(self._peers), problems=problems, kernel=kernel)

    def infos(self):
        return ()

    counters = infos

    async def kernel_drops(self):
        return {DROP: 4}

    def _follow(self, snapshot):
        self._peers = tuple(others(snapshot.leases, self._own, 4))

    async def _make(self, ip):
        if await rtnetlink.link(ip, ifname=DEVICE) is None:
            await ip.link("add", ifname=DEVICE, kind="bridge", mtu=MTU)
        index = (await rtnetlink.link(ip, ifname=DEVICE))["index"]
        await rtnetlink.change_link(ip, index, ("IFLA_IFALIAS", ALIAS), up=True)
        if not await rtnetlink.addresses(ip, index):
            await ip.addr("add", index=index, address=str(self._own.subnet.base), prefixlen=32)

    async def _look(self):
        return Look((await self._netlink.call(partial(self._reconcile, peers=self._peers))).words())

    async def _reconcile(self, _ip, peers):
        ways = [Way(Route.to(it.subnet, it.outer, self._endpoint.index)) for it in peers]
        with Bulk() as bulk:
            return reconcile(bulk, Scope(self._config.network), ways)


def check(_config):
    """It has no options."""


backend = FourthBackend

if __name__ == "__main__":
    from udpbackend.cli import main

    registered.BACKENDS[KIND] = "fourth"
    sys.modules["udpbackend.backends.fourth"] = sys.modules["__main__"]
    raise SystemExit(main())
