"""The program's first lines, for `udp-backend` and for `python -m udpbackend`.

Owns the answer to SIGTERM and SIGINT until the daemon has its own: loading it takes most of a second, and a service
manager may change its mind meanwhile. Nothing is imported here that takes time. Commands are ended as any program is.
"""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Runs the program and gives its exit status."""
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)
    from udpbackend.cli import main as run  # noqa: PLC0415 what it loads, a signal may interrupt

    return run()


def _end(_number: int, _frame: FrameType | None) -> None:
    """Ends at once: nothing has been started, and an exception could get lost in whatever is being imported."""
    os.write(2, b"udp-backend: stopping on a signal: nothing was started yet\n")
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
