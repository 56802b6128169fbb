"""The file behind flannel0: one queue of a TUN device.

Owns opening it with the flags the C side relies on, and the sentence for each way that can fail. Must not know
addresses, routes or whether someone else uses the device: a multi-queue device lets a second program attach without a
word, so the daemon asks `host.flannel0` first.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import pytun

from udpbackend.errors import HostError

DEVICE = Path("/dev/net/tun")
CAP_NET_ADMIN = 12
"""Its bit in the capability sets of linux/capability.h."""

IFF_VNET_HDR = 0x4000
IFF_MULTI_QUEUE = 0x0100
IFF_TUN_EXCL = 0x8000
TUNSETPERSIST = 0x400454CB  # linux/if_tun.h, as the next
TUNSETOWNER = 0x400454CC
FLAGS: int = pytun.IFF_TUN | pytun.IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE
"""Every queue of a device must be opened with the same flags."""

NO_DEVICE = f"{DEVICE} is missing: load the module (modprobe tun) or mount it into the container"
NO_ACCESS = f"not permitted: the capability NET_ADMIN and access to {DEVICE} are needed (as root, or granted)"


class TunQueue:
    """One queue; owns its fd, which is non-blocking and closed on exec.

    Without `persist` the device goes away with its last queue. Call `persist` after the device has been marked as ours
    (`OverlayLink.configure`): a crash in between then leaves nothing behind that a next start would not recognise.
    """

    def __init__(self, name: str, fd: int) -> None:
        """`fd` is transferred."""
        self.name = name
        self._fd = fd

    def fileno(self) -> int:
        """The fd; borrowed."""
        return self._fd

    def persist(self) -> None:
        """Lets the device, its address and its routes outlive this process.

        It gets an owner first, for to a persistent device without one the kernel lets every user attach. Raises
        HostError where the device was deleted meanwhile.
        """
        try:
            fcntl.ioctl(self._fd, TUNSETOWNER, os.geteuid())
            fcntl.ioctl(self._fd, TUNSETPERSIST, 1)
        except OSError as error:
            raise HostError(f"cannot make {self.name} outlive this process: {error.strerror}") from error

    def close(self) -> None:
        """Closes the fd; may be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_tun(name: str, *, new: bool = False) -> TunQueue:
    """Opens a queue of the device `name`, which is created if there is none; with `new` it must not exist."""
    try:
        device = pytun.TunTapDevice(name=name, flags=FLAGS | (IFF_TUN_EXCL if new else 0))
    except pytun.Error as error:
        raise HostError(f"cannot open TUN device {name}: {_reason(error, name, new=new)}") from error
    fd = os.dup(device.fileno())  # not inherited by programs we run
    os.set_blocking(fd, False)
    queue = TunQueue(device.name, fd)
    device.close()
    return queue


def check_tun_access() -> None:
    """Proves that a TUN device could be opened, without making one; HostError otherwise."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise HostError(f"cannot open TUN devices: {_reason(error, '', new=False)}") from error
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    if not int(effective, 16) >> CAP_NET_ADMIN & 1:
        raise HostError(f"cannot open TUN devices: {NO_ACCESS}")


def _reason(error: OSError, name: str, *, new: bool) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return NO_DEVICE
        case errno.EACCES | errno.EPERM:
            return NO_ACCESS
        case errno.EINVAL:
            return (
                f"a device {name} of another kind or with other flags exists; expected none, or one made by udp-backend"
            )
        case errno.EBUSY if new:
            return f"another program has just made {name}"
        case errno.EBUSY:
            return f"{name} is in use by another program"
        case _:
            return error.strerror or str(error)
