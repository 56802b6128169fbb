"""The configuration that is handed to the plugin which does the work, `bridge` as a rule.

Pure: our configuration and subnet.env in, an object out. Must not know where they come from or who runs it.
"""

from __future__ import annotations

import ipaddress

from udpbackend.cni import jsontext
from udpbackend.cni.errors import INTERNAL, PluginError
from udpbackend.cni.request import Config
from udpbackend.cni.subnetenv import SubnetEnv, cidr

BRIDGE = "bridge"


def build(config: Config, env: SubnetEnv) -> dict[str, object]:
    """Our `delegate`, completed. Raises PluginError."""
    check(config.delegate)
    found: dict[str, object] = dict(config.delegate or {})
    if config.runtime_config is not None:
        found["runtimeConfig"] = config.runtime_config
    found["name"] = config.name
    found.setdefault("type", BRIDGE)
    found.setdefault("ipMasq", not env.ip_masq)  # one of the two has to
    found.setdefault("mtu", env.mtu)
    if found["type"] == BRIDGE:
        found.setdefault("isGateway", True)
    if config.cni_version:
        found["cniVersion"] = config.cni_version
    found["ipam"] = _ipam(config.ipam or {}, env)
    return found


def check(delegate: dict[str, object] | None) -> None:
    """Raises PluginError for a `delegate` that nothing can be made of."""
    if delegate is None:
        return
    if "type" in delegate and not isinstance(delegate["type"], str):
        raise PluginError(INTERNAL, "'delegate' dictionary, if present, must have (string) 'type' field")
    for key in ("name", "ipam"):
        if key in delegate:
            words = f"'delegate' dictionary must not have '{key}' field, it'll be set by flannel"
            raise PluginError(INTERNAL, words)


def _ipam(given: dict[str, object], env: SubnetEnv) -> dict[str, object]:
    ipam = dict(given)
    ipam.setdefault("type", "host-local")
    ipam["ranges"] = [[{"subnet": subnet}] for subnet in (env.subnet, env.subnet6) if subnet]
    try:
        routes = _routes(given.get("routes"))
    except ValueError as error:
        words = f"failed to assemble Delegate IPAM: failed to read IPAM routes: failed to parse ipam.routes: {error}"
        raise PluginError(INTERNAL, words) from None
    ipam["routes"] = routes + [{"dst": network} for network in (*env.networks, *env.networks6)]
    return ipam


def _routes(given: object) -> list[dict[str, object]]:
    if isinstance(given, (list, type(None))):
        return [_route(item) for item in given or ()]
    raise ValueError("expected a list of routes")


def _route(given: object) -> dict[str, object]:
    """The keys of a route in the order of Go's struct; others are dropped, as it drops them."""
    if not isinstance(given, dict) or not isinstance(given.get("dst"), str):
        raise ValueError('expected a route like {"dst": "10.96.0.0/12"}')  # noqa: TRY004 not our caller's mistake
    route = jsontext.Struct(dst=cidr(given["dst"]).with_prefixlen)
    if gateway := given.get("gw"):
        try:
            route["gw"] = str(ipaddress.ip_address(str(gateway)))
        except ValueError:
            raise ValueError(f"invalid IP address: {gateway}") from None
    for key in ("mtu", "advmss", "priority", "table", "scope"):
        value = given.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ValueError(f"{key}: expected a whole number")
        if value or (value == 0 and key in ("table", "scope")):
            route[key] = value
    return route
