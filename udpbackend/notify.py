"""The service manager's notification socket: readiness, a line of status, and fds that it keeps for the next start.

Must not know who listens or what the fds are. Without NOTIFY_SOCKET it does nothing, and it never fails: a service
manager that does not listen is no reason to stop moving packets. The protocol is sd_notify(3).
"""

import os
import select
import socket
from array import array
from contextlib import suppress

PATIENCE_S = 1.0
"""For a manager whose socket is full, as at boot with ten datagrams, and for it to have read what it was sent."""


def notify(*assignments: str, fds: tuple[int, ...] = (), patience_s: float = PATIENCE_S) -> bool:
    """Sends `READY=1`, `STATUS=...`: one datagram for all of them, so that they count together; whether it was sent.

    `fds` go with it and stay the caller's. Blocks for so long while the manager's socket is full, for nothing of it is
    said twice: on the event loop only without patience.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):  # others (vsock) are for virtual machines
        return False
    address = "\0" + path[1:] if path[0] == "@" else path
    text = "\n".join(line.replace("\n", " ") for line in assignments).encode()
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(patience_s)
        if fds:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))
            sender.sendmsg([text], [rights], 0, address)  # socket.send_fds() forgets the address
        else:
            sender.sendto(text, address)
        return True
    return False


def barrier() -> bool:
    """Waits until the manager has acted on all that was sent before; False where it does not say so in time."""
    ours, theirs = os.pipe()
    try:
        sent = notify("BARRIER=1", fds=(theirs,))
        os.close(theirs)
        return sent and bool(select.select([ours], [], [], PATIENCE_S)[0])  # at its end: the manager has closed it
    finally:
        os.close(ours)
