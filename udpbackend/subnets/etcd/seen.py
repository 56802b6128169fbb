"""What was seen of etcd, and whether a fresh list continues it.

Pure: no clock, no connection. Owns what shows a *reset*: etcd has lost its data, or stands on an older copy. Knows
nothing of what keys mean.

Numbers show it: another cluster id, a revision gone back, or a key that has changed at a time of which all had been
seen. They show nothing where etcd has grown past our revision before we look, and all it has was written since. A key
that is missing then looks like one that was deleted. So where one is missing etcd is asked for its past, which is
another one after a reset.
"""

from __future__ import annotations

import msgspec

from udpbackend.subnets.etcd.values import Range, text


class Seen(msgspec.Struct, frozen=True):
    """All keys as they were at one revision."""

    cluster_id: int
    revision: int
    changed: dict[bytes, int]
    """Each key's mod_revision."""

    def lacks_in(self, listing: Range) -> bool:
        """Whether a key that was there is not in a fresh list."""
        return not self.changed.keys() <= {kv.key for kv in listing.items}

    def reset_in(self, listing: Range, past: Range | None = None) -> str | None:
        """What shows in a fresh list that it is no continuation, or in `past`: what etcd says today of `revision`."""
        if listing.cluster_id != self.cluster_id:
            return f"its cluster id was {self.cluster_id:x} and is {listing.cluster_id:x}"
        if listing.revision < self.revision:
            return f"its revision was {self.revision} and is {listing.revision}"
        for kv in listing.items:
            if kv.mod_revision <= self.revision and kv.mod_revision != self.changed.get(kv.key):
                return f"{text(kv.key)} was changed at revision {kv.mod_revision}, which was another change before"
        return self._other_than(past) if past is not None else None

    def _other_than(self, past: Range) -> str | None:
        differing = self.changed.items() ^ {(kv.key, kv.mod_revision) for kv in past.items}
        if not differing:
            return None
        key, _ = min(differing)
        return f"it has another past: {text(key)} was not so at revision {self.revision}"
