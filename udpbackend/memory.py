"""How this process and glibc share memory.

Owns the one setting of the C library that we change. Must not know what the memory is for.
"""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3
"""mallopt(3)."""
LARGE_BYTES = 256 * 1024


def keep_large_blocks_apart() -> None:
    """Lets every large block go back to the system when it is freed.

    glibc otherwise takes the largest one freed so far for the size of what an arena should hold: after one registry of
    thousands of nodes was read, the next ones stay ours for good. Another C library has no such habit, and no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
