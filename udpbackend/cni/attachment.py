"""ADD, CHECK and DEL: what is delegated, kept, looked at again, and taken back.

Owns the order: what is delegated is kept first, so that DEL can take back even what an ADD has half done. A container
has one attachment: the file is named after it alone.
"""

from __future__ import annotations

import os
import sys

from udpbackend.cni import delegate, invoke, jsontext, state, subnetenv
from udpbackend.cni.errors import INCOMPATIBLE_VERSION, INTERNAL, UNKNOWN_CONTAINER, PluginError, reason
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
        raise unkept("keep", config, error) from None
    try:
        result = invoke.run(invoke.find(str(delegated["type"]), os.environ["CNI_PATH"]), conf)
        jsontext.members(result)
    except LookupError as error:
        raise PluginError(INTERNAL, f"failed to delegate add: {error}") from None
    except ValueError as error:
        words = f"failed to delegate add: failed to unmarshal raw result: {error}"
        raise PluginError(INTERNAL, words) from None
    return result


def check(config: Config) -> None:
    """Lets the delegate compare what it has made with the result of its ADD. Raises PluginError if they differ."""
    container = os.environ["CNI_CONTAINERID"]
    try:
        conf = state.load(config.data_dir, container)
    except OSError as error:
        raise unkept("read", config, error) from None
    if conf is None:
        words = f"no ADD of {container} is known"
        raise PluginError(UNKNOWN_CONTAINER, words, f"{config.data_dir} has nothing about it")
    try:
        delegated, plugin = jsontext.members(conf), _type(conf)
    except ValueError as error:
        raise PluginError(INTERNAL, f"failed to parse netconf: {error}") from None
    delegated["cniVersion"] = config.cni_version  # that of the result, whatever it was at the time of the ADD
    if config.previous_result is not None:
        delegated["prevResult"] = _with_gateways(config.previous_result)
    try:
        invoke.run(invoke.find(plugin, os.environ["CNI_PATH"]), jsontext.encode(delegated))
    except LookupError as error:
        raise PluginError(INTERNAL, f"failed to delegate check: {error}") from None


def delete(config: Config) -> None:
    """Takes back what is kept for the container; nothing kept, nothing to do. Raises PluginError, and keeps it then.

    What no later DEL could do more with is forgotten: what cannot be read as a configuration, and one of a version that
    the delegate refuses, which it has then refused to its ADD too.
    """
    container = os.environ["CNI_CONTAINERID"]
    try:
        conf = state.load(config.data_dir, container)
    except OSError as error:
        raise unkept("read", config, error) from None
    if conf is None:
        return
    try:
        plugin = _type(conf)
    except ValueError as error:
        sys.stderr.write(f"failed to parse netconf: {error}\n")
    else:
        try:
            _take_back(invoke.find(plugin, os.environ["CNI_PATH"]), conf)
        except LookupError as error:
            raise PluginError(INTERNAL, str(error)) from None
    state.remove(config.data_dir, container)


def unkept(verb: str, config: Config, error: OSError) -> PluginError:
    """The error for a state file that cannot be used."""
    return PluginError(INTERNAL, f"cannot {verb} what is delegated, in {config.data_dir}: {reason(error)}")


def _take_back(program: str, conf: bytes) -> None:
    """The delegate's DEL; in words that it knows, if it has been replaced by an older one since its ADD."""
    try:
        invoke.run(program, conf)
    except PluginError as error:
        if error.code != INCOMPATIBLE_VERSION:
            raise
        refused = error
    else:
        return
    delegated = jsontext.members(conf)
    older = [it for it in invoke.versions(program) if it != delegated.get("cniVersion")]
    sys.stderr.write(f"{program} refuses the version of what was delegated: {refused.msg}: {refused.details}\n")
    if not older:
        return
    delegated["cniVersion"] = older[-1]
    try:
        invoke.run(program, jsontext.encode(delegated))
    except PluginError as error:
        if error.code != INCOMPATIBLE_VERSION:
            raise


def _with_gateways(result: dict[str, object]) -> dict[str, object]:
    """A result whose routes all say by which gateway they lead: the address's own, where they do not.

    That is how `bridge` has made them, but before 1.3 its CHECK misses each route whose gateway is not said.
    """
    ips, routes = result.get("ips"), result.get("routes")
    if not isinstance(ips, list) or not isinstance(routes, list):
        return result
    gateways = {":" in str(it.get("address")): it.get("gateway") for it in reversed(ips) if isinstance(it, dict)}
    known = []
    for it in routes:
        gateway = gateways.get(":" in str(it.get("dst"))) if isinstance(it, dict) else None
        known.append({"gw": gateway, **it} if gateway else it)
    return {**result, "routes": known}


def _type(conf: bytes) -> str:
    plugin = jsontext.members(conf).get("type")
    if isinstance(plugin, str) and plugin:
        return plugin
    raise ValueError("it names no plugin")
