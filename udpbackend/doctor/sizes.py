"""The largest packet that reaches an address whole, found by echo requests with DF.

A small request goes first, then one of the full size. Where only that stays unanswered, several sizes are tried at
once, a few rounds until the answer is exact. It is believed only if in the end the next size is refused every time
while small requests, sent in turn with it, are all answered: loss by chance takes small ones, too.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

from udpbackend.doctor.echo import WAIT_S, Echo

SMALL_BYTES = 100
AT_ONCE = 12
"""Sizes in one round: 1400 bytes are settled in three."""

WAIT_LEAST_S, PATIENCE = 0.3, 10
"""An answer is waited for this long, and so many times as long as a small one took."""

TURNS, PACE_S, LONGEST_S = 8, 0.1, 2.0
"""Of the proof: how often each is asked and how far apart, and how long a slow path has for an answer."""


async def largest(echo: Echo, address: IPv4Address, most: int) -> int | None:
    """In bytes of the IP packet, at most `most`; None where small ones are lost, too, or all. `echo` sets DF."""
    small = await echo.ask(address, size=SMALL_BYTES)
    if small.rtt_s is None:
        return None
    wait_s = min(WAIT_S, WAIT_LEAST_S + PATIENCE * small.rtt_s)
    if (await echo.ask(address, size=most, wait_s=wait_s)).came:
        return most
    passes, fails = SMALL_BYTES, most
    while sizes := between(passes, fails):
        answers = await asyncio.gather(*(echo.ask(address, size=size, tries=2, wait_s=wait_s) for size in sizes))
        came = [size for size, answer in zip(sizes, answers, strict=True) if answer.came]
        passes = max(came, default=passes)
        fails = min((size for size in sizes if size > passes), default=fails)
    return passes if await _refused(echo, address, passes + 1) else None


async def _refused(echo: Echo, address: IPv4Address, size: int) -> bool:
    """Whether packets of that size never get through where small ones always do."""

    async def came(size: int) -> list[bool]:
        answers = await echo.several(address, TURNS, size=size, pace_s=PACE_S, wait_s=LONGEST_S)
        return [it.came for it in answers]

    small, large = await asyncio.gather(came(SMALL_BYTES), came(size))
    return all(small) and not any(large)


def between(passes: int, fails: int) -> list[int]:
    """Sizes to try next, in ascending order; none where the two are neighbours."""
    step = max(1, -((passes - fails) // (AT_ONCE + 1)))  # rounded up
    return list(range(passes + step, fails, step))
