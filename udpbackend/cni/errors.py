"""The one error of the plugin: what the runtime reads on standard output when something fails.

Owns the error codes and the error's form; does not know who raises it.
"""

from __future__ import annotations

from udpbackend.cni import jsontext

# The CNI specification 1.1.0, "Error", and what its Go library adds to it.
INCOMPATIBLE_VERSION = 1
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
UNDECODABLE = 6
INVALID_CONFIG = 7
INVALID_NETNS = 8
UNAVAILABLE = 50
"""No ADD can succeed now."""
INTERNAL = 999
"""Flannel's plugin has this for all errors of its own."""


def reason(error: OSError) -> str:
    """Go's words for a system call's error."""
    return (error.strerror or str(error)).lower()


class PluginError(Exception):
    """Ends the plugin with status 1; `details` may be empty."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details

    def json(self) -> bytes:
        """The error as the runtime is shown it."""
        fields = jsontext.Struct(code=self.code, msg=self.msg)
        if self.details:
            fields["details"] = self.details
        return jsontext.encode(fields, indent=4)
