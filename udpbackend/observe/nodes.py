"""The leases of one snapshot as observers need them: who is followed, who is of another backend, how many there are.

Below the facts that hold it and the reports that read it. Must not know counters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import attrgetter

from udpbackend.model import Lease, Prefix

PUBLIC_IP = attrgetter("public_ip")


class Nodes:
    """The leases of one snapshot, sorted out when that is first asked for: scrapes come more often than snapshots."""

    def __init__(self, leases: Sequence[Lease] = (), kind: str | None = None, own: Prefix | None = None) -> None:
        """`kind`: our backend; `own`: our subnet. None: not known yet, and nobody is left out for it."""
        self.leases = leases
        """All of them; our own may be among them, and so may nodes of other backends."""
        self.kind = kind
        self.own = own

    @cached_property
    def ignored(self) -> tuple[Lease, ...]:
        """Nodes of another backend, by address."""
        return tuple(
            sorted((it for it in self.leases if self._is_other(it) and not self._is_followed(it)), key=PUBLIC_IP)
        )

    @cached_property
    def known(self) -> int:
        """How many hosts the others are."""
        return len({it.public_ip for it in self.followed()})

    def followed(self) -> Iterator[Lease]:
        """The other nodes of our backend."""
        return (it for it in self.leases if self._is_other(it) and self._is_followed(it))

    def _is_other(self, lease: Lease) -> bool:
        return lease.subnet != self.own

    def _is_followed(self, lease: Lease) -> bool:
        return self.kind is None or lease.backend_type == self.kind
