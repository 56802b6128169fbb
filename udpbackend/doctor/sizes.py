"""The largest packet that reaches an address whole, found by echo requests with DF.

A small request goes first, then one of the full size. Where only that stays unanswered, several sizes are tried at
once, a few rounds until the answer is exact.
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


async def largest(echo: Echo, address: IPv4Address, most: int) -> int | None:
    """In bytes of the IP packet, at most `most`; None where not even a small one is answered. `echo` sets DF."""
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
    return passes


def between(passes: int, fails: int) -> list[int]:
    """Sizes to try next, in ascending order; none where the two are neighbours."""
    step = max(1, -((passes - fails) // (AT_ONCE + 1)))  # rounded up
    return list(range(passes + step, fails, step))
