"""flannel0 and the queue on it, as one thing that is opened, repaired and closed.

Owns the TUN queue, its pump, and the rule that a deleted device is made again. Must not know routes or leases: it is
told what flannel0 should be.
"""

from __future__ import annotations

import asyncio
import logging

from udpbackend.dataplane.native import Dataplane
from udpbackend.dataplane.pump import Pump
from udpbackend.dataplane.tun import TunQueue, open_tun
from udpbackend.errors import HostError
from udpbackend.host.flannel0 import NAME, OverlayLink, Presence
from udpbackend.host.overlay_plan import Overlay

log = logging.getLogger(__name__)

QUEUE = 0
RETRY_S = (1.0, 30.0)
"""First and longest wait before flannel0 is made once more."""


async def refuse_others_device(link: OverlayLink) -> bool:
    """Raises HostError for a flannel0 that is not ours to take; tells whether there is none at all."""
    state = await link.inspect()
    if state.presence is Presence.FOREIGN:
        raise HostError(f"{state.why}: stop that program and delete it, `ip link delete {NAME}`")
    if state.presence is Presence.IN_USE:
        raise HostError(f"{NAME} is in use by another udp-backend: stop it first")
    return state.presence is Presence.ABSENT


class Device:
    """`open`, `start`, then `repair` as often as one likes, `close`; `remove` takes an `open` back."""

    def __init__(self, link: OverlayLink, overlay: Overlay, dataplane: Dataplane, udp_fd: int) -> None:
        """`udp_fd` is borrowed until `close`."""
        self._link = link
        self._overlay = overlay
        self._dataplane = dataplane
        self._udp_fd = udp_fd
        self._tun: TunQueue | None = None
        self._pump: Pump | None = None
        self._made = False
        self._started_at = 0.0
        self.lost = asyncio.Event()
        """Set when the queue has ended and `repair` has to make it again."""
        self.problems: tuple[str, ...] = ()
        """What is wrong with flannel0 and stays so until somebody mends it."""

    async def open(self) -> None:
        """Makes or takes over flannel0 and brings it in order."""
        absent = await refuse_others_device(self._link)
        tun = open_tun(NAME, new=absent)
        try:
            changed = await self._link.configure(self._overlay)
            tun.persist()  # last: a device that could not be configured vanishes with this fd
        except BaseException:
            tun.close()
            raise
        self._tun = tun
        self._made = self._made or absent
        for what in () if absent else changed:
            log.info("took over %s and mended it: %s", NAME, what)

    def start(self) -> None:
        """Lets packets flow."""
        if self._tun is None:
            raise HostError(f"{NAME} is not open")
        self.lost.clear()
        self._started_at = asyncio.get_running_loop().time()
        self._dataplane.open_queue(QUEUE, self._tun.fileno(), self._udp_fd)
        self._pump = Pump(self._dataplane, QUEUE, self._ended)
        self._pump.start()

    async def repair(self) -> None:
        """Puts back what others have changed on flannel0, and makes it again when it is gone."""
        if self.lost.is_set():
            await self._remake()
        repair = await self._link.ensure()
        for what in repair.done:
            log.info("repaired %s: %s", NAME, what)
        for what in repair.left:
            if what not in self.problems:
                log.warning("%s", what)
        self.problems = repair.left
        if repair.gone:
            self.lost.set()

    async def close(self) -> None:
        """Stops packets; flannel0 itself stays, with its address and routes."""
        if self._pump is not None:
            await self._pump.stop()
            self._pump = None
            self._dataplane.close_queue(QUEUE)
        if self._tun is not None:
            self._tun.close()
            self._tun = None

    async def remove(self) -> None:
        """After `close`: deletes flannel0 if this process has made it."""
        if self._made:
            await self._link.remove()

    def _ended(self, why: str) -> None:
        log.warning("the queue on %s has ended: %s", NAME, why)
        self.lost.set()

    async def _remake(self) -> None:
        """A new queue, and a new flannel0 in place of a deleted one, however many tries that takes."""
        await self.close()
        # A queue that ends as soon as it is started must not make us spin.
        await asyncio.sleep(max(0.0, self._started_at + RETRY_S[0] - asyncio.get_running_loop().time()))
        wait = RETRY_S[0]
        while self._tun is None:
            try:
                await self.open()
            except HostError as error:
                self.problems = (str(error),)
                log.warning("cannot open %s again, next try in %.0f s: %s", NAME, wait, error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, RETRY_S[1])
        self.start()
        log.info("%s is back", NAME)
