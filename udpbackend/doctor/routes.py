"""Which way the kernel would send a packet, asked of the kernel itself, so that rules and tables of all kinds count."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from udpbackend.doctor.facts import Facts

LOOPBACK = 1
"""Index of `lo`, by which packets to an address of this very host leave."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way to one address."""

    device: str
    """Empty where there is no way."""
    local: bool = False
    """Whether the address is one of this host's."""
    error: str = ""


async def ways(facts: Facts, targets: Iterable[IPv4Address], source: str = "") -> dict[IPv4Address, Way]:
    """The way to each, for packets that come from `source` if given, which must be an address of this host."""
    names = {link.index: link.name for link in facts.links}
    given = {"src": source} if source else {}

    async def find(ip: Any) -> dict[IPv4Address, Way]:
        return {target: await _way(ip, names, dst=str(target), **given) for target in set(targets)}

    return await facts.netlink.call(find)


async def refused(
    facts: Facts, sources: Iterable[IPv4Address], *, device: str, address: IPv4Address
) -> set[IPv4Address]:
    """Those from whom the kernel would take no packet to `address`, ours, that comes in by the device."""
    index = next((link.index for link in facts.links if link.name == device), None)
    if index is None:
        return set()

    async def find(ip: Any) -> set[IPv4Address]:
        # A lookup with an input device is done as for a packet that was received, reverse-path filter and all.
        return {it for it in set(sources) if (await _way(ip, {}, dst=str(address), iif=index, src=str(it))).error}

    return await facts.netlink.call(find)


async def _way(ip: Any, names: Mapping[int, str], **asked: str | int) -> Way:
    try:
        route = (await ip.route("get", **asked))[0]
    except NetlinkError as error:
        return Way("", error=os.strerror(error.code))
    index = route.get_attr("RTA_OIF")
    return Way(names.get(index, f"device {index}"), local=index == LOOPBACK)
