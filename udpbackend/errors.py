"""The one exception tree: everything we raise on purpose, each with the exit status it ends the program with.

Knows nothing of the rest of the program. The command line catches `UdpBackendError` at one door, prints its
message as one line on stderr and exits with its `status`.
"""


class UdpBackendError(Exception):
    """Something is wrong that the operator can mend; the message names the value and what was expected."""

    status = 1


class UsageError(UdpBackendError):
    """The command line or the environment is wrong."""

    status = 2


class ConfigError(UdpBackendError):
    """A network configuration or a registry's content is not valid."""


class HostError(UdpBackendError):
    """The host refuses or lacks something: a device, a capability, an address, a port, a file."""


class BusyError(HostError):
    """Another program of this host is just using what we need: the same request will succeed later."""


class DataplaneError(UdpBackendError):
    """The C dataplane refused a request; the message carries the errno's text."""


class RestartNeededError(ConfigError):
    """A change that this process cannot follow: its own subnet or the network has changed."""


class LeaseRevokedError(UdpBackendError):
    """Somebody has deleted our lease: this host is no longer part of the network, and the daemon ends in good order."""

    status = 0


class RegistryError(UdpBackendError):
    """A registry cannot be reached or refuses a request; the same request may succeed later."""


class LeaseLostError(UdpBackendError):
    """Our subnet belongs to another node now."""
