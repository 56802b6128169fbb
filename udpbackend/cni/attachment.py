"""ADD and DEL: what is delegated, kept, and taken back.

Owns the order: what is delegated is kept first, so that DEL can take back even what an ADD has half done. A container
has one attachment: the file is named after it alone.
"""

from __future__ import annotations

import os
import sys

from udpbackend.cni import delegate, invoke, jsontext, state, subnetenv
from udpbackend.cni.errors import INTERNAL, PluginError, reason
from udpbackend.cni.request import Config


def add(config: Config) -> bytes:
    """Delegates; gives the delegate's result as it came. Raises PluginError, and then what was kept stays for DEL."""
    try:
        env = subnetenv.load(config.subnet_file)
    except ValueError as error:
        words = f"failed to load flannel 'subnet.env' file: {error}. Check the flannel pod log for this node."
        raise PluginError(INTERNAL, words) from None
    delegated = delegate.build(config, env)
    conf = jsontext.encode(delegated)
    sys.stderr.buffer.write(conf + b"\n")
    try:
        state.save(config.data_dir, os.environ["CNI_CONTAINERID"], conf)
    except OSError as error:
        raise _unkept("keep", config, error) from None
    try:
        result = invoke.run(invoke.find(str(delegated["type"]), os.environ["CNI_PATH"]), conf)
        jsontext.members(result)
    except LookupError as error:
        raise PluginError(INTERNAL, f"failed to delegate add: {error}") from None
    except ValueError as error:
        words = f"failed to delegate add: failed to unmarshal raw result: {error}"
        raise PluginError(INTERNAL, words) from None
    return result


def delete(config: Config) -> None:
    """Takes back what is kept for the container; nothing kept, nothing to do. Raises PluginError, and keeps it then.

    What cannot be read as a configuration is forgotten: no later DEL could do more with it.
    """
    container = os.environ["CNI_CONTAINERID"]
    try:
        conf = state.load(config.data_dir, container)
    except OSError as error:
        raise _unkept("read", config, error) from None
    if conf is None:
        return
    try:
        plugin = _type(conf)
    except ValueError as error:
        sys.stderr.write(f"failed to parse netconf: {error}\n")
    else:
        try:
            invoke.run(invoke.find(plugin, os.environ["CNI_PATH"]), conf)
        except LookupError as error:
            raise PluginError(INTERNAL, str(error)) from None
    state.remove(config.data_dir, container)


def _type(conf: bytes) -> str:
    plugin = jsontext.members(conf).get("type")
    if isinstance(plugin, str) and plugin:
        return plugin
    raise ValueError("it names no plugin")


def _unkept(verb: str, config: Config, error: OSError) -> PluginError:
    return PluginError(INTERNAL, f"cannot {verb} what is delegated, in {config.data_dir}: {reason(error)}")
