"""The service manager's fd store: it holds our fds while we are dead, and gives them to the next start.

Owns the names under which fds are stored, and the proof that they are. Must not know what the fds are. The protocol is
systemd's (sd_notify(3) FDSTORE, sd_listen_fds(3)); any supervisor that speaks it will do.

Stored with FDPOLL=0: the manager would drop an fd for good at its first error, and a single ICMP error is one.
"""

from __future__ import annotations

import os
import select
from collections.abc import Collection, Mapping, MutableMapping

from udpbackend.notify import barrier, notify

FIRST_FD = 3  # SD_LISTEN_FDS_START
PROBE = "probe"


class FdStore:
    """What the manager keeps for us, by name."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def received(self, environ: MutableMapping[str, str]) -> dict[str, int]:
        """The fds that this start was given, by name, transferred; they are no longer told of in `environ`."""
        pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
        names = environ.pop("LISTEN_FDNAMES", "").split(":")
        if pid != str(os.getpid()) or not count.isdecimal():
            return {}
        found: dict[str, int] = {}
        for fd, name in zip(range(FIRST_FD, FIRST_FD + int(count)), names, strict=False):
            os.set_inheritable(fd, False)  # noqa: FBT003 positional only
            if name in found:  # stored twice
                os.close(fd)
            else:
                found[name] = fd
        self._names |= found.keys()
        return found

    def keep(self, fds: Mapping[str, int], *, anew: Collection[str] = ()) -> bool:
        """Stores these fds, borrowed, in place of all others; whether the manager does keep them.

        `anew`: names that stood for another open file before, which the manager would keep beside the new one.
        That is found out, not believed: the last thing sent is a pipe's end, which is still open afterwards only if the
        manager had room for it and all before.
        """
        for name in self._names - (fds.keys() - anew):
            self._forget(name)
        for name, fd in fds.items():
            if not notify("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", fds=(fd,)):
                return False
            self._names.add(name)
        ours, theirs = os.pipe()
        try:
            sent = notify("FDSTORE=1", f"FDNAME={PROBE}", "FDPOLL=0", fds=(theirs,))
            os.close(theirs)
            kept = sent and barrier() and not select.select([ours], [], [], 0)[0]
            self._forget(PROBE)
        finally:
            os.close(ours)
        return kept

    def forget(self) -> None:
        """Lets the manager close all that it keeps for us, and waits until it has."""
        if not self._names:
            return
        for name in sorted(self._names):
            self._forget(name)
        barrier()

    def _forget(self, name: str) -> None:
        self._names.discard(name)
        notify("FDSTOREREMOVE=1", f"FDNAME={name}")
