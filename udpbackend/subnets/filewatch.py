"""Waking up when a file may have changed.

Owns the watch (inotify, by uvloop) of the directories in which that would show: the one the path names, and the one
the file really lies in, where the path is a symlink. It must not know what the file holds. A watch can be lost, and a
change made on another host is told to nobody here, so whoever waits looks from time to time all the same.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self


class FileWatch:
    """A context; `changed` in it waits for the next change of anything beside the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._event = asyncio.Event()
        self._watches: dict[Path, asyncio.Handle] = {}

    def __enter__(self) -> Self:
        self._follow()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unfollow()

    @property
    def sees(self) -> bool:
        """Whether anything is watched: not on asyncio's own loop, nor where the kernel has no watches left."""
        return bool(self._watches)

    async def changed(self, most_s: float) -> None:
        """Returns after the next change, or after `most_s`; at once for a change since the last call."""
        try:
            async with asyncio.timeout(most_s):
                await self._event.wait()
        except TimeoutError:
            self._unfollow()  # a directory of this name may be another one by now
        self._event.clear()
        self._follow()

    def _follow(self) -> None:
        """Watches where the file lies now; nothing on an event loop that cannot, or where the directory is gone."""
        # Not in uvloop's documentation, and none of asyncio's loops has the like.
        monitor = getattr(asyncio.get_running_loop(), "_monitor_fs", None)
        if monitor is None:
            return
        for folder in {self._path.absolute().parent, self._path.resolve().parent} - self._watches.keys():
            with suppress(OSError):
                self._watches[folder] = monitor(str(folder), lambda *_: self._event.set())

    def _unfollow(self) -> None:
        while self._watches:
            self._watches.popitem()[1].cancel()
