"""Which flannel<number> a daemon's TUN is to be, where several networks of one host have one each, as flannel's do.

Owns the choice, from the devices there are and those that other daemons claim. Changes nothing; whether the chosen one
can be taken is `flannel0`'s word.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Sequence
from itertools import count

from udpbackend.host.claims import claims
from udpbackend.host.leftovers_devices import Device, read_devices
from udpbackend.host.netlink import Netlink
from udpbackend.model import Prefix

TUN = re.compile(r"flannel(\d+)")


async def free_name(netlink: Netlink, networks: Sequence[Prefix]) -> str:
    """The device of the last run for this network, else the first that no other network's daemon holds."""
    claimed = {device for it in await asyncio.to_thread(claims) for device in it.devices}
    return choose(await read_devices(netlink), networks, claimed)


def choose(devices: Sequence[Device], networks: Sequence[Prefix], claimed: Collection[str] = ()) -> str:
    """`flannel0`, unless a program holds it for another network, or a daemon that has yet to make it claims it."""
    there = {int(found[1]): it for it in devices if (found := TUN.fullmatch(it.name))}
    mine = [number for number, it in sorted(there.items()) if it.ours and _inside(it, networks)]
    if mine:
        return f"flannel{mine[0]}"
    return next(
        name
        for number in count()
        if (name := f"flannel{number}") not in claimed
        and ((it := there.get(number)) is None or not _held(it) or _inside(it, networks))
    )


def _held(device: Device) -> bool:
    """Whether a program holds it, or the kernel carries another network by it, with or without a program."""
    return bool(device.queues or device.port)


def _inside(device: Device, networks: Sequence[Prefix]) -> bool:
    return any(network.holds(address) for network in networks for address in device.addresses)
