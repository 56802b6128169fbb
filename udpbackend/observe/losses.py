"""What this host lost of late of packets that were good, cause by cause: what makes a daemon that runs not "ready".

Owns which counters are such losses, from how much on they count, and two samples of them. Must not know where the
counts come from: it is handed functions. Bad packets and those that no peer owns are no losses of ours, and anybody
can send them: those that the source check refuses are told to who asks, and change no verdict. Nor does what a peer
takes too slowly, which is told of that peer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from udpbackend.backends.backend import KernelDrop
from udpbackend.observe.report import Loss

if TYPE_CHECKING:
    from udpbackend.dataplane.native import CounterInfo

SAMPLE_S = 5.0
"""What is told of goes back to the last sample but one: five to ten seconds."""
SHARE, LEAST = 0.01, 10
"""Where there is too little room or time, a sender is meant to notice by a loss now and then: TCP goes as fast as it
can in this way. From this share on, and so many packets, it is no sign but harm."""
REFUSED_WRITES = ("rx_drop_tun_down", "rx_drop_tun_refused", "rx_drop_tun_full")
"""The kernel's driver counts a write to a device that is down, say, as a packet dropped there."""


class Cause(NamedTuple):
    """A way to lose packets."""

    counter: str
    beside: str
    """What counts those that were not lost, in the same unit; they may be super-packets."""
    why: str
    each: bool = False
    """Whether a single one is told of: no sender is meant to cause it."""
    told: tuple[str, ...] = ()
    """Counters of ours of packets that the kernel counts here too, lost by a cause that they name themselves."""


CAUSES = (
    Cause("flannel0_tx_dropped", "tx_reads", "flannel0's queue was full"),
    Cause("flannel0_rx_dropped", "rx_writes", "the host's input queue was full", told=REFUSED_WRITES),
    Cause("socket_rx_dropped", "rx_messages", "the UDP socket's buffer was full"),
    Cause("tx_drop_socket_full", "tx_delivered", "the underlay took no more"),
    Cause("rx_drop_tun_full", "rx_delivered", "the kernel had no room for them at flannel0"),
    Cause("tx_drop_no_buffer", "tx_delivered", "a queue of the underlay was full, or memory short"),
    Cause("tx_drop_unreachable", "tx_delivered", "this host has no way to a peer's public IP", each=True),
    Cause("tx_drop_refused", "tx_delivered", "this host's firewall refuses datagrams to a peer", each=True),
    Cause("tx_drop_send_error", "tx_delivered", "the kernel refuses datagrams to a peer", each=True),
)

REFUSALS = (
    Cause("rx_drop_inner_source", "rx_delivered", "their inner source is not in the sending peer's subnet", each=True),
    Cause("rx_drop_unknown_peer", "rx_delivered", "they come from an address that is no peer's public IP", each=True),
)
"""By the source check."""

Totals = Mapping[str, int]


def evidence(loss: Loss) -> str:
    """How many that were."""
    return f"{loss.packets:,} of {loss.of:,} in {loss.over_s:.0f} s"


class Losses:
    """Run `run` as a task for the daemon's life; `since` tells what was lost of late."""

    def __init__(
        self,
        infos: Sequence[CounterInfo],
        counters: Callable[[], Sequence[int]],
        kernel: Callable[[], Awaitable[Mapping[KernelDrop, int]]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._infos = infos
        self._counters = counters
        self._kernel = kernel
        self._clock = clock
        self._samples: deque[tuple[float, Totals]] = deque(maxlen=2)

    async def run(self) -> None:
        """Takes samples until cancelled; ends at once where the kernel moves the packets and nothing is counted."""
        while self._infos:
            self.sample(self._counters(), await self._kernel())
            await asyncio.sleep(SAMPLE_S)

    def sample(self, counters: Sequence[int], kernel: Mapping[KernelDrop, int]) -> None:
        """What is counted now is compared with later."""
        self._samples.append((self._clock(), self._totals(counters, kernel)))

    def since(
        self, counters: Sequence[int], kernel: Mapping[KernelDrop, int], causes: Sequence[Cause] = CAUSES
    ) -> tuple[Loss, ...]:
        """What was lost by these causes between the last sample but one and now, when these are counted."""
        if not self._samples:
            return ()
        then, before = self._samples[0]
        over_s, now = self._clock() - then, self._totals(counters, kernel)
        cures = {it.name: it.cure for it in self._infos} | {it.name: it.cure for it in kernel}
        losses = []
        for cause in causes:
            lost, passed, *told = (_grown(it, before, now) for it in (cause.counter, cause.beside, *cause.told))
            lost = max(0, lost - sum(told))
            if lost if cause.each else lost >= max(LEAST, SHARE * (lost + passed)):
                what = f"packets are lost: {cause.why}"
                cure = cures.get(cause.counter, "")
                losses.append(
                    Loss(counter=cause.counter, packets=lost, of=lost + passed, over_s=over_s, what=what, cure=cure)
                )
        return tuple(losses)

    def _totals(self, counters: Sequence[int], kernel: Mapping[KernelDrop, int]) -> Totals:
        counted = {info.name: value for info, value in zip(self._infos, counters, strict=True)}
        return counted | {it.name: value for it, value in kernel.items()}


def _grown(name: str, before: Totals, now: Totals) -> int:
    """By how much; what could not be read once tells nothing."""
    return max(0, now[name] - before[name]) if name in now and name in before else 0
