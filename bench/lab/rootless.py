"""The laboratory for somebody who is not root: once more from the start, as root of a user namespace of our own.

Owns the one re-execution and the tmpfs on /run that `ip netns` needs for its names. Knows nothing of what runs after.
"""

import os
import subprocess
import sys

from bench.lab.netns import run
from bench.lab.wait import LabError

TUN = "/dev/net/tun"
_GUARD = "UDPB_LAB_ROOTLESS"
_UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--")


def become_able(advice: str) -> None:
    """Returns when this process may make network namespaces and TUN devices; executes itself anew if that helps.

    `advice` says what to do where nothing helps, like "run it as root: sudo make demo".
    """
    if not os.path.exists(TUN):  # noqa: PTH110  (a device node, not a file of ours)
        raise LabError(f"{TUN} is missing: load the tun module, or give this container the device")
    if os.environ.get(_GUARD):
        run(["mount", "-t", "tmpfs", "tmpfs", "/run"])
        del os.environ[_GUARD]
        return
    if os.geteuid() == 0:
        return
    if not os.access(TUN, os.R_OK | os.W_OK):
        raise LabError(f"no access to {TUN}; {advice}")
    if not _allowed():
        raise LabError(f"user namespaces are not allowed here; {advice}")
    again = [*_UNSHARE, sys.executable, *sys.orig_argv[1:]]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(again[0], again, {**os.environ, _GUARD: "1"})  # noqa: S606  (our own argument list, no shell)


def _allowed() -> bool:
    try:
        probe = subprocess.run([*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True, check=False)
    except OSError:
        return False
    return probe.returncode == 0
