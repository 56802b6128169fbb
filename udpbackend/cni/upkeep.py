"""STATUS and GC: whether an ADD could succeed, and what is left of containers that are gone.

Owns what is asked of the delegate for no container in particular. flannel's plugin answers both with success and does
nothing; a runtime that asks acts on the answer, so here it is true.
"""

from __future__ import annotations

import os
from contextlib import suppress

from udpbackend.cni import attachment, delegate, invoke, jsontext, state, subnetenv
from udpbackend.cni.errors import UNAVAILABLE, PluginError
from udpbackend.cni.request import VALID_ATTACHMENTS, Config

IFNAME = "eth0"
"""What runtimes call a container's interface: of one that is gone nobody tells us the name."""


def status(config: Config) -> None:
    """Raises PluginError if no ADD could succeed now: the daemon was never ready, or the delegate cannot."""
    _ask(config, {})


def collect(config: Config) -> None:
    """Takes back what is kept for containers of this network that the runtime no longer has, then lets the delegate.

    What fails is told in the end, and keeps nothing else from being taken back. Raises PluginError.
    """
    attachments = config.valid_attachments
    valid = {it.get("containerID") for it in attachments if isinstance(it, dict)}
    try:
        kept = [it for it in state.containers(config.data_dir) if it not in valid]
    except OSError as error:
        raise attachment.unkept("read", config, error) from None
    failure: PluginError | None = None
    for container in kept:
        if _is_of(config, container):
            os.environ.update(CNI_COMMAND="DEL", CNI_CONTAINERID=container, CNI_IFNAME=IFNAME, CNI_NETNS="")
            try:
                attachment.delete(config)
            except PluginError as error:
                failure = failure or error
    for variable in ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"):
        os.environ.pop(variable, None)
    os.environ["CNI_COMMAND"] = "GC"
    _ask(config, {VALID_ATTACHMENTS: attachments})
    if failure is not None:
        raise failure


def _ask(config: Config, more: dict[str, object]) -> None:
    """Runs our own command as the delegate's, with `more` in its configuration."""
    try:
        env = subnetenv.load(config.subnet_file)
    except ValueError as error:
        words = "the network is not ready on this node: the daemon has not written its subnet file"
        raise PluginError(UNAVAILABLE, words, f"failed to load flannel 'subnet.env' file: {error}") from None
    delegated = delegate.build(config, env)
    try:
        program = invoke.find(str(delegated["type"]), os.environ["CNI_PATH"])
    except LookupError as error:
        raise PluginError(UNAVAILABLE, str(error)) from None
    invoke.run(program, jsontext.encode({**delegated, **more}))


def _is_of(config: Config, container: str) -> bool:
    """Whether what is kept for a container is of this network: another one may have the same directory."""
    with suppress(OSError, ValueError):
        return jsontext.members(state.load(config.data_dir, container) or b"").get("name") == config.name
    return False
