"""What every registry tells about itself, whatever it is made of."""

from __future__ import annotations

import msgspec


class RegistryState(msgspec.Struct, frozen=True):
    """How a registry fares, for status, health and metrics."""

    kind: str
    """`static` so far."""
    source: str
    """Where the leases come from: a file's path."""
    last_sync: float
    """When the leases in use were last known to be the registry's own, in seconds since the epoch; 0 for never."""
    degraded: str | None
    """Why the leases in use may be out of date: one line, or None."""
    revision: int
    """That of the snapshot in use; 0 before the first."""
