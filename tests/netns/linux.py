"""Which Linux this is, for tests of what came with a version. Must not know what depends on it."""

import os
import re


def at_least(major: int, minor: int) -> bool:
    """Whether the running kernel is of that series or a later one."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    assert found, os.uname().release
    return (int(found[1]), int(found[2])) >= (major, minor)
