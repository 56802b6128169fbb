"""By what a device of an overlay is known, whichever backend has made it: its name, and for ours its alias.

Owns both, and the name of the pods' bridge. Must not know backends: a new one whose device is called and marked so is
found by all that look for one.
"""

from __future__ import annotations

MARK = "udpbackend"
ALIAS = f"{MARK}: overlay network of this node"
"""The alias by which a later start knows the device for its own."""
BRIDGE = "cni0"
"""The bridge that pods hang on, which the CNI plugin makes."""
NAMES = "flannel"
"""What the name of an overlay's device begins with, ours or flannel's."""


def overlays(name: str) -> bool:
    """Whether an overlay's device, ours or flannel's, is called so."""
    return name.startswith(NAMES)


def ours(name: str, alias: str) -> bool:
    """Whether a daemon of ours has made it. The alias alone may be an administrator's note on another device."""
    return overlays(name) and alias.startswith(MARK)
