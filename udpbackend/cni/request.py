"""What the runtime asks: the environment and the configuration on standard input, checked in the CNI library's order.

Owns the names of the variables and keys and the error for each that is wrong. Must not know what is done about it.
"""

from __future__ import annotations

import os
import re

from udpbackend.cni import jsontext
from udpbackend.cni.errors import INTERNAL, INVALID_CONFIG, INVALID_ENVIRONMENT, UNDECODABLE, PluginError

SUBNET_FILE = "/run/flannel/subnet.env"
DATA_DIR = "/var/lib/cni/flannel"

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
"""Of a container and of a network; both become names of files."""
IFNAME_BYTES = 15

VALID_ATTACHMENTS = "cni.dev/valid-attachments"

LOADING = "failed to load netconf: "

ALWAYS = frozenset({"ADD", "CHECK", "DEL"})
NEEDED = {
    "CNI_CONTAINERID": ALWAYS,
    "CNI_NETNS": frozenset({"ADD", "CHECK"}),
    "CNI_IFNAME": ALWAYS,
    "CNI_PATH": ALWAYS | {"GC", "STATUS"},
}
"""Variables and the commands that cannot do without them."""


def check_environment(command: str) -> None:
    """Raises PluginError: a wrong value at once, then all that are missing."""
    missing = []
    for variable, commands in NEEDED.items():
        if command not in commands:
            continue
        value = os.environ.get(variable, "")
        if not value:
            missing.append(variable)
        elif variable == "CNI_CONTAINERID" and not NAME.fullmatch(value):
            raise PluginError(INVALID_ENVIRONMENT, "invalid characters in containerID", value)
        elif variable == "CNI_IFNAME":
            _check_ifname(value)
    if missing:
        raise PluginError(INVALID_ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")


def _check_ifname(name: str) -> None:
    if len(os.fsencode(name)) > IFNAME_BYTES:
        details = f"interface name should be less than {IFNAME_BYTES + 1} characters"
        raise PluginError(INVALID_ENVIRONMENT, "interface name is too long", details)
    if name in (".", ".."):
        raise PluginError(INVALID_ENVIRONMENT, "interface name is . or ..")
    if any(char in "/:" or char.isspace() for char in name):
        raise PluginError(INVALID_ENVIRONMENT, "interface name contains / or : or whitespace characters")


class Config:
    """The network configuration; unknown keys are ignored. As in Go, keys match in any case, and null is none.

    What is of the wrong type raises PluginError where it is asked for, the name of the network at once.
    """

    def __init__(self, data: bytes) -> None:
        words = "error unmarshall network config: "
        try:
            document = jsontext.members(data)
        except ValueError as error:
            raise PluginError(UNDECODABLE, f"{words}{error}") from None
        self._given = {key.lower() for key in document}
        self._values = {key.lower(): value for key, value in document.items() if value is not None}
        self.name = self._text("name", "", UNDECODABLE, words)
        if not self.name:
            raise PluginError(INVALID_CONFIG, "missing network name")
        if not NAME.fullmatch(self.name):
            raise PluginError(INVALID_CONFIG, "invalid characters found in network name", self.name)

    @property
    def cni_version(self) -> str:
        """Of the specification; empty if it is not said, which means 0.1.0."""
        return self._text("cniVersion", "", UNDECODABLE, "decoding version from network config: ")

    @property
    def subnet_file(self) -> str:
        """The daemon's."""
        return self._text("subnetFile", SUBNET_FILE)

    @property
    def data_dir(self) -> str:
        """Where state files stand."""
        return self._text("dataDir", DATA_DIR)

    @property
    def delegate(self) -> dict[str, object] | None:
        """What the delegated configuration shall have besides, as given."""
        return self._object("delegate")

    @property
    def ipam(self) -> dict[str, object] | None:
        """Likewise for its address management."""
        return self._object("ipam")

    @property
    def previous_result(self) -> dict[str, object] | None:
        """The result of the ADD that a CHECK is about."""
        return self._object("prevResult")

    @property
    def valid_attachments(self) -> list[object]:
        """Those that a GC leaves alone; null is what Go writes for none.

        Raises PluginError where they are not given: none would be left.
        """
        value = self._values.get(VALID_ATTACHMENTS, [] if VALID_ATTACHMENTS in self._given else None)
        if not isinstance(value, list):
            raise PluginError(INVALID_CONFIG, f"{VALID_ATTACHMENTS}: expected a list")
        return value

    @property
    def runtime_config(self) -> dict[str, object] | None:
        """What the runtime adds, port mappings for example."""
        return self._object("runtimeConfig")

    def _text(self, key: str, default: str, code: int = INTERNAL, words: str = LOADING) -> str:
        value = self._values.get(key.lower(), default)
        if not isinstance(value, str):
            raise PluginError(code, f"{words}{key}: expected a string")
        return value

    def _object(self, key: str) -> dict[str, object] | None:
        value = self._values.get(key.lower())
        if value is not None and not isinstance(value, dict):
            raise PluginError(INTERNAL, f"{LOADING}{key}: expected an object")
        return value
