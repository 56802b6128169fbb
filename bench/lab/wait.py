"""Waiting for a condition with a deadline, and the laboratory's one exception.

Knows no namespaces and no programs. This is the only place in the laboratory that sleeps.
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

EVERY_S = 0.02
"""Pause between two looks at a condition: short beside anything we wait for, long beside the cost of a look."""


class LabError(Exception):
    """The laboratory could not do what it was asked to; the message is complete and meant to be read."""


def until(condition: Callable[[], T | None], deadline_s: float, what: str) -> T:
    """Returns the first true value of `condition`; raises LabError when there is none within `deadline_s`.

    An exception of the condition ends the wait: a condition that may fail for a while returns False instead.
    """
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        if time.monotonic() >= end:
            raise LabError(f"{what}: still waiting after {deadline_s:g} s")
        time.sleep(EVERY_S)
    return found
