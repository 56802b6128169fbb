"""The way to the API server of Kubernetes, for the checks that need it. Its client, 20 MB, is loaded only when used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from udpbackend.doctor.facts import Facts

if TYPE_CHECKING:
    from udpbackend.doctor.cluster import Cluster


@asynccontextmanager
async def cluster(facts: Facts) -> AsyncIterator[Cluster]:
    """A connection by the doctor's own flags, closed at the end. Raises ConfigError where there is no way to it."""
    found: Cluster = await import_module("udpbackend.doctor.cluster").connect(facts.settings)
    try:
        yield found
    finally:
        await found.close()
