"""Which free subnet a new node gets, by flannel's rule: one of the first hundred, at random.

Pure: serves every registry that gives out subnets itself, and knows none. Random, because nodes that start together
read the same leases and would all want the same subnet; among the first, so that a network fills from its lower end.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address
from operator import attrgetter
from random import Random

from udpbackend.errors import ConfigError
from udpbackend.model import WIDTH, NetworkConfig, Prefix

CHOICES = 100
"""As in flannel."""

Range = tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address, int]
"""The lowest and the highest base address of a subnet, and the subnets' length."""

NOWHERE: Range = (IPv6Address(1), IPv6Address(0), WIDTH[6])


def fits(config: NetworkConfig, subnet: Prefix) -> bool:
    """Whether the configuration would give out this subnet."""
    lowest, highest, bits = _range(config, subnet.version)
    return subnet.bits == bits and int(lowest) <= subnet.address <= int(highest)


def choose(
    config: NetworkConfig, taken: Collection[Prefix], wanted: Collection[Prefix], random: Random
) -> tuple[Prefix, Prefix | None]:
    """An IPv4 subnet and, if the network has it, an IPv6 one, neither of which overlaps a taken one.

    `wanted` are taken where the configuration gives them out and they are free. Raises ConfigError if there are none.
    """
    return (
        _choose(config, 4, taken, wanted, random),
        _choose(config, 6, taken, wanted, random) if config.ipv6 else None,
    )


def _choose(
    config: NetworkConfig, version: int, taken: Collection[Prefix], wanted: Collection[Prefix], random: Random
) -> Prefix:
    for subnet in wanted:
        if subnet.version == version and fits(config, subnet) and not any(subnet.overlaps(other) for other in taken):
            return subnet
    free = _free(config, version, taken)
    if not free:
        lowest, highest, bits = _range(config, version)
        raise ConfigError(f"out of subnets: every /{bits} from {lowest} to {highest} is taken, at least in part")
    return random.choice(free)


def _free(config: NetworkConfig, version: int, taken: Collection[Prefix]) -> list[Prefix]:
    """The first free subnets, found by walking them and the taken ones together, both in the order of addresses."""
    lowest, highest, bits = _range(config, version)
    step = 1 << (WIDTH[version] - bits)
    base, free = int(lowest), list[Prefix]()
    for other in sorted((other for other in taken if other.version == version), key=attrgetter("address")):
        while base + step <= other.address and base <= int(highest) and len(free) < CHOICES:
            free.append(Prefix(base, bits, version))
            base += step
        if other.last >= base:  # on to the first subnet behind it
            base += (other.last - base) // step * step + step
    while base <= int(highest) and len(free) < CHOICES:
        free.append(Prefix(base, bits, version))
        base += step
    return free


def _range(config: NetworkConfig, version: int) -> Range:
    if version == 4:
        return config.subnet_min, config.subnet_max, config.subnet_len
    ipv6 = config.ipv6
    return (ipv6.subnet_min, ipv6.subnet_max, ipv6.subnet_len) if ipv6 else NOWHERE
