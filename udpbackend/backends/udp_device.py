"""flannel0 and the queues on it, as one thing that is opened, repaired and closed.

Owns the TUN queues, what turns them, and the rule that a deleted device is made again. Must not know routes or leases:
it is told what flannel0 should be.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from udpbackend.backends.backend import Movers
from udpbackend.dataplane.native import Dataplane, calls_refused, steer
from udpbackend.dataplane.priority import LOOK_S, Priority, Session, granted
from udpbackend.dataplane.pump import Pump
from udpbackend.dataplane.tun import TunQueue, open_tun
from udpbackend.dataplane.worker import Worker
from udpbackend.errors import DataplaneError, HostError
from udpbackend.host.flannel0 import OverlayLink, Presence
from udpbackend.host.lasting import Lasting
from udpbackend.host.overlay_plan import Overlay

log = logging.getLogger(__name__)

RETRY_S = (1.0, 5.0)
"""First and longest wait before flannel0 is made once more: a try that is refused costs two milliseconds."""

LENT_S = 2.0
"""How long a thread keeps the queue at least, after the work for which it was lent."""


async def refuse_others_device(link: OverlayLink) -> bool:
    """Raises HostError for a flannel0 that is not ours to take; tells whether there is none at all."""
    state = await link.inspect()
    if state.presence is Presence.FOREIGN:
        raise HostError(f"{state.why}: stop that program and delete it, `ip link delete {link.name}`")
    if state.presence is Presence.IN_USE:
        raise HostError(f"{link.name} is in use by another udp-backend: stop it first")
    return state.presence is Presence.ABSENT


def refused_calls() -> tuple[str, ...]:
    """What to say when a thread that moves packets has tried a system call that its filter does not let pass."""
    count, last = calls_refused()
    if not count:
        return ()
    times = "a system call" if count == 1 else f"{count} system calls"
    return (f"the seccomp filter refused {times} of a thread that moves packets, the last one number {last}",)


@dataclass(frozen=True, slots=True)
class Plan:
    """The queues there are to be; the fds are borrowed until the device is closed."""

    udp_fds: Sequence[int]
    """One queue for each."""
    sender_fds: Sequence[int]
    """Sockets that all queues send from as well."""
    workers: bool
    """Whether the queues have threads of their own; otherwise there is one, on the event loop."""
    cpus: Sequence[int] = ()
    """Cores that these threads are bound to, in turn."""
    nice: int = 0
    """Of the threads. Where the kernel grants it, a single queue has a thread of its own, too: the event loop, which is
    all of the control plane, is no more than any other program."""


class Device:
    """`open`, `start`, then `repair` as often as one likes, `close`; `remove` takes an `open` back."""

    def __init__(self, link: OverlayLink, overlay: Overlay, dataplane: Dataplane, plan: Plan) -> None:
        self._link = link
        self._overlay = overlay
        self._dataplane = dataplane
        self._plan = plan
        self._tuns: list[TunQueue] = []
        self._turners: list[Pump | Worker] = []
        self._handing = asyncio.Lock()  # a queue that changes hands is not closed, and a closed one not lent
        self._borrowers = 0
        self._made = False
        self._started_at = 0.0
        self._lent_until = 0.0
        self._priority = Priority(os.getpriority(os.PRIO_PROCESS, 0))
        self._threads = plan.workers
        self._session: Session | None = None
        self._lasting = Lasting()
        self._offered: list[TunQueue] = []
        self._released = False
        self.lost = asyncio.Event()
        """Set when the queue has ended and `repair` has to make it again."""
        self.problems: tuple[str, ...] = ()
        """What is wrong with flannel0 and stays so until somebody mends it."""

    async def open(self) -> None:
        """Makes or takes over flannel0 and brings it in order."""
        absent = await refuse_others_device(self._link)
        self._tuns.append(open_tun(self._link.name, new=absent))
        try:
            changed = await self._link.configure(self._overlay)
            self._tuns += [open_tun(self._link.name) for _ in self._plan.udp_fds[1:]]
            self._steer()
            self._tuns[0].persist()  # last: a device that could not be configured vanishes with its fds
        except BaseException:
            self._close_tuns()
            raise
        self._made = self._made or absent
        for what in () if absent else changed:
            log.info("took over %s and mended it: %s", self._link.name, what)

    async def adopt(self, tuns: Sequence[TunQueue], workers: Sequence[Worker]) -> None:
        """In place of `open` and `start`: queues that turn already, on flannel0, which is brought in order."""
        self._look_at_priority()
        self._tuns, self._turners = list(tuns), list(map(self._watched, workers))
        self._started_at = asyncio.get_running_loop().time()
        self._lent_until = self._started_at + LENT_S
        for what in await self._link.configure(self._overlay):
            log.info("took over %s and mended it: %s", self._link.name, what)
        self._tuns[0].persist()

    def offer(self) -> dict[str, int]:
        """The queues' fds, for a process that opens them while they are turned here and waits for the `release`."""
        self._offered = list(self._tuns)
        return self.fds

    async def release(self, next_fds: Sequence[int]) -> None:
        """Stops turning, at a batch's end and with nothing left unsent; each queue's eventfd is written at that moment.

        The fds stay open, for `resume`. Raises HostError where the queues are no more those that were offered.
        """
        async with self._handing:
            if not self._turners or self.lost.is_set() or self._offered != self._tuns:
                raise HostError(f"{self._link.name} is being made again")
            if len(next_fds) != len(self._turners):
                raise HostError(f"it takes {len(next_fds)} queues of {len(self._turners)}")
            self._released = True
            turners, self._turners = self._turners, []
            for queue, (turner, next_fd) in enumerate(zip(turners, next_fds, strict=True)):
                if isinstance(turner, Worker):
                    self._dataplane.pass_on(queue, next_fd)
                    turner.halt()  # waits for a batch's end here and now: a way over other threads is longer
                else:
                    await turner.stop()
                    self._dataplane.flush_queue(queue)
                    os.eventfd_write(next_fd, 1)
                self._dataplane.close_queue(queue)

    def resume(self) -> None:
        """Takes a `release` back; where the queues can be turned no more, `repair` makes new ones."""
        self._released = False
        if self._tuns:
            try:
                self.start()
            except DataplaneError as error:  # flannel0 was deleted meanwhile
                self._ended(str(error))

    @property
    def fds(self) -> dict[str, int]:
        """The TUN queues by name, borrowed."""
        return {f"tun-{queue}": tun.fileno() for queue, tun in enumerate(self._tuns)}

    def start(self) -> None:
        """Lets packets flow. Raises DataplaneError where flannel0 was deleted since `open`."""
        if not self._tuns:
            raise HostError(f"{self._link.name} is not open")
        self.lost.clear()
        self._look_at_priority()
        self._started_at = asyncio.get_running_loop().time()
        for queue, (tun, udp_fd) in enumerate(zip(self._tuns, self._plan.udp_fds, strict=True)):
            self._dataplane.open_queue(queue, tun.fileno(), udp_fd)
            try:
                for sender_fd in self._plan.sender_fds:
                    self._dataplane.add_socket(queue, sender_fd)
            except DataplaneError:
                self._dataplane.close_queue(queue)  # `close` knows only those that somebody turns
                raise
            turner = self._turner(queue)
            self._turners.append(turner)
            turner.start()

    def _turner(self, queue: int) -> Pump | Worker:
        if not self._threads:
            return Pump(self._dataplane, queue, self._ended)
        cpus = self._plan.cpus
        return self._worker(queue, cpus[queue % len(cpus)] if cpus else None)

    def _worker(self, queue: int, cpu: int | None = None) -> Worker:
        return self._watched(Worker(self._dataplane, queue, nice=self._plan.nice, cpu=cpu))

    def _look_at_priority(self) -> None:
        """Decides whether the queues have threads of their own; says once that a priority is not to be had."""
        before, self._priority = self._priority, granted(self._plan.nice)
        if self._priority.refused and self._priority.refused != before.refused:
            log.warning("beside other programs packets may have to wait: %s", self._priority.refused)
        raised = self._priority.nice < os.getpriority(os.PRIO_PROCESS, 0)
        self._threads = self._plan.workers or raised
        self._session = (self._session or Session()) if raised else None

    @property
    def movers(self) -> Movers:
        """Who moves the packets now."""
        threads = sum(isinstance(it, Worker) for it in self._turners)
        it = self._priority
        guards = [self._dataplane.guard(queue) for queue in range(len(self._turners))]
        return Movers(
            threads=threads,
            nice=it.nice,
            crowded=self._crowded,
            session_nice=self._session.nice if self._session else None,
            refused=it.refused,
            filtered=guards.count(1),
            unfiltered=self._unfiltered(guards, threads),
        )

    def _unfiltered(self, guards: Sequence[int], threads: int) -> str:
        if not self._dataplane.guarded:
            return "--seccomp=false"
        if not threads:
            return "the event loop makes other system calls, too"
        return next((f"not granted ({os.strerror(-it)})" for it in guards if it < 0), "")

    @property
    def _crowded(self) -> bool:
        return any(map(self._dataplane.crowded, range(len(self._tuns))))

    async def follow_session(self) -> None:
        """Gives the daemon's session priority while that is needed; ends at once where there is nothing to give."""
        clock = asyncio.get_running_loop().time
        while self._session is not None and self._session.counts:
            self._session.follow(crowded=self._crowded, now=clock())
            await asyncio.sleep(LOOK_S)

    def _watched(self, worker: Worker) -> Worker:
        worker.watch(asyncio.get_running_loop().call_soon_threadsafe, self._ended)
        return worker

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """While the loop's Python has long work, and LENT_S longer, a thread turns the queue in its place.

        Such work comes in series, and to change hands is a pause for packets: `repair` takes the queue back. Meanwhile
        it can be closed or released: some work waits for others, such as who reads a long status slowly.
        """
        self._borrowers += 1
        try:
            async with self._handing:
                if self._turners and isinstance(self._turners[0], Pump):
                    await self._hand(self._worker(0))
            yield
        finally:
            self._borrowers -= 1
            self._lent_until = asyncio.get_running_loop().time() + LENT_S

    async def _take_back(self) -> None:
        async with self._handing:
            lent = self._turners and isinstance(self._turners[0], Worker) and not self._threads
            if lent and not self._borrowers and asyncio.get_running_loop().time() >= self._lent_until:
                await self._hand(Pump(self._dataplane, 0, self._ended))

    async def _hand(self, turner: Pump | Worker) -> None:
        """Gives the first queue to another turner."""
        await self._turners[0].stop()
        self._turners[0] = turner
        turner.start()

    async def repair(self) -> bool:
        """Puts back what others have changed on flannel0, and makes it again when it is gone; not while released.

        Tells whether the queues are new ones.
        """
        if self._released:
            return False
        await self._take_back()
        remade = self.lost.is_set()
        if remade:
            await self._remake()
        repair = await self._link.ensure()
        for what in self._lasting.note(repair.done):
            log.info("repaired %s: %s", self._link.name, what)
        problems = (*repair.left, *self._lasting.problems)
        for what in problems:
            if what not in self.problems:
                log.warning("%s", what)
        self.problems = problems
        if repair.gone:
            self.lost.set()
        return remade

    async def close(self) -> None:
        """Stops packets; flannel0 itself stays, with its address and routes."""
        async with self._handing:
            turners, self._turners = self._turners, []
            for queue, turner in enumerate(turners):
                await turner.stop()
                self._dataplane.close_queue(queue)
            self._close_tuns()

    async def remove(self) -> None:
        """After `close`: deletes flannel0 if this process has made it."""
        if self._made:
            await self._link.remove()

    def _ended(self, why: str) -> None:
        log.warning("a queue of %s has ended: %s", self._link.name, why)
        self.lost.set()

    def _steer(self) -> None:
        if len(self._tuns) > 1 and (why := steer(self._tuns[0].fileno())) is not None:
            log.warning(
                "packets of one flow may overtake each other between the queues of %s: no BPF: %s", self._link.name, why
            )

    def _close_tuns(self) -> None:
        while self._tuns:
            self._tuns.pop().close()

    async def _remake(self) -> None:
        """A new queue, and a new flannel0 in place of a deleted one, however many tries that takes."""
        await self.close()
        # A queue that ends as soon as it is started must not make us spin.
        await asyncio.sleep(max(0.0, self._started_at + RETRY_S[0] - asyncio.get_running_loop().time()))
        wait = RETRY_S[0]
        while not self._tuns:
            try:
                await self.open()
                self.start()
            except (HostError, DataplaneError) as error:  # the last: it was deleted once more
                await self.close()
                if self.problems != (str(error),):
                    log.warning("cannot open %s again, trying on: %s", self._link.name, error)
                self.problems = (str(error),)
                await asyncio.sleep(wait)
                wait = min(2 * wait, RETRY_S[1])
        log.info("%s is back", self._link.name)
