"""What all backends have in common that leave the packets to the kernel: they want a state of it, and keep that.

Owns the way from a lease and a snapshot to a look, and the answers of a backend that moves nothing itself. Must not
know what is wanted: a backend says so in `_follow`, and compares and repairs in `_look`. Serves vxlan, host-gw and the
udp backend with the kernel's dataplane.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Protocol

from udpbackend.backends.backend import KernelDrop, Overlay
from udpbackend.backends.keeper import Keeper, Look
from udpbackend.backends.peers import Own
from udpbackend.errors import HostError
from udpbackend.host.netlink import Netlink
from udpbackend.model import Lease, Snapshot

if TYPE_CHECKING:  # the C extension is not needed to count nothing
    from udpbackend.dataplane.native import CounterInfo


class KeptByKernel(ABC):
    """`start` by way of `_settle`, then `apply` for each snapshot while `run` repairs; `stop` in any state."""

    def __init__(self, netlink: Netlink, look_s: float) -> None:
        """`look_s`: how often is looked where the kernel tells of no change."""
        self._netlink = netlink
        self._keeper = Keeper(netlink, self._look, look_s)
        self._known_as: Own | None = None
        self._starting = True
        """While this is true a look raises what later ones would only tell of."""
        self._routes = 0

    async def apply(self, snapshot: Snapshot) -> None:
        """Follows the leases of a snapshot."""
        self._follow(snapshot)
        await self._keeper.follow()

    async def run(self) -> None:
        """Repairs until cancelled."""
        await self._keeper.run()

    async def stop(self) -> None:  # noqa: B027  (there is nothing to do, for all of them)
        """Ends. What is in the kernel stays, so packets flow on."""

    def undisturbed(self) -> AbstractAsyncContextManager[None]:
        """The kernel's packets are never disturbed by us."""
        return nullcontext()

    def infos(self) -> Sequence[CounterInfo]:
        """Nothing is counted: the kernel moves the packets."""
        return ()

    def counters(self) -> Sequence[int]:
        """Likewise."""
        return ()

    async def kernel_drops(self) -> Mapping[KernelDrop, int]:
        """Likewise."""
        return {}

    @property
    def _own(self) -> Own:
        """By what this host knows its own leases."""
        if self._known_as is None:
            raise HostError("the backend was not started")
        return self._known_as

    def _begin(self, lease: Lease) -> None:
        """From now on it is known whose leases are not a peer's."""
        self._known_as = Own(lease.subnet, lease.public_ip)

    async def _settle(self, snapshot: Snapshot) -> None:
        """The first look. Raises HostError."""
        self._follow(snapshot)
        await self._keeper.start()
        self._starting = False

    @abstractmethod
    def _follow(self, snapshot: Snapshot) -> None:
        """What the snapshot asks for from now on."""

    @abstractmethod
    async def _look(self) -> Look:
        """One look at everything, and its repair."""


class Device(Protocol):
    """An overlay device, as it should be."""

    @property
    def name(self) -> str:
        """Of the link."""

    @property
    def address(self) -> IPv4Address | IPv6Address:
        """What it carries."""


def overlay(devices: Sequence[Device], mtu: int) -> Overlay:
    """That of IPv4 and, where there is one, its twin of IPv6, as observers are shown them."""
    first, *twin = devices
    return Overlay(
        device=first.name,
        address=IPv4Address(int(first.address)),
        address6=IPv6Address(int(twin[0].address)) if twin else None,
        device6=twin[0].name if twin else None,
        mtu=mtu,
    )
