"""The service manager's notification socket: readiness and one line of status for `systemctl status`.

Must not know who listens. Without NOTIFY_SOCKET it does nothing, and it never fails: a service manager that does not
listen is no reason to stop moving packets.
"""

import os
import socket
from contextlib import suppress


def notify(*assignments: str) -> None:
    """Sends `READY=1`, `STOPPING=1`, `STATUS=...`: one datagram for all of them, so that they count together."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):  # others (vsock) are for virtual machines
        return
    address = "\0" + path[1:] if path[0] == "@" else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        sender.sendto("\n".join(line.replace("\n", " ") for line in assignments).encode(), address)
