"""The event by which a registry is told that nothing on this host keeps packets from flowing."""

import asyncio


def sound() -> asyncio.Event:
    """One that says so."""
    event = asyncio.Event()
    event.set()
    return event
