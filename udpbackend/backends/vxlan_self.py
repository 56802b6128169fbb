"""What this host is to be in a vxlan overlay: its MAC, the source of its packets, its devices.

Owns these choices and their refusals, of which all are made before anything is changed. Must not know the peers.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from udpbackend.backends.backend import Context
from udpbackend.backends.peers import own_ipv6
from udpbackend.backends.vxlan_config import MIN_MTU_BYTES, OVERHEAD_BYTES, VxlanOptions
from udpbackend.backends.vxlan_peers import derived_mac, random_mac, said_mac
from udpbackend.errors import ConfigError
from udpbackend.host import vxlan_link
from udpbackend.host.addresses import local_addresses
from udpbackend.host.ipv6 import require_ipv6
from udpbackend.host.netlink import Netlink
from udpbackend.model import Lease, Prefix

log = logging.getLogger(__name__)

IPV6_MIN_MTU_BYTES = 1280
"""RFC 8200: every IPv6 link takes as much, and Linux takes IPv6 off a device that does not."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are, in one IP version."""

    mac: bytes
    source: IPv4Address | IPv6Address
    """Of our outer packets."""


class Host:
    """What this host is to be; nothing here changes anything."""

    def __init__(self, context: Context) -> None:
        """Raises ConfigError for a wrong option."""
        self.config, self.endpoint = context.config, context.endpoint
        self.options = VxlanOptions.of(context.config)
        self._outer_mtu = min(self.options.mtu or self.endpoint.mtu, self.endpoint.mtu)

    def mtu(self, version: int) -> int:
        """That of the device of an IP version, in bytes."""
        return self._outer_mtu - OVERHEAD_BYTES[version]

    async def identify(self, netlink: Netlink, held: Lease | None) -> dict[int, Identity]:
        """By IP version, who we are; IPv6 is left out where this node has none. Raises ConfigError or HostError."""
        self._refuse_small_mtu()
        mine = await local_addresses(netlink)
        # Behind a NAT the public address is not ours to send from.
        source = self.endpoint.public_ip if self.endpoint.public_ip in mine else self.endpoint.address
        found = {4: Identity(await self._mac(netlink, held, held.subnet if held else None, source), source)}
        if self.config.ipv6 is not None and (held is None or held.ipv6_subnet is not None):
            source6 = own_ipv6(self.endpoint, mine)
            self._require_ipv6()
            found[6] = Identity(await self._mac(netlink, held, held.ipv6_subnet if held else None, source6), source6)
        return found

    def vtep(self, subnet: Prefix, network: Prefix, identity: Identity) -> vxlan_link.Vtep:
        """The device for our subnet."""
        return vxlan_link.Vtep(
            name=self.options.device(subnet.version),
            vni=self.options.vni,
            port=self.options.port,
            underlay=self.endpoint.interface,
            local=identity.source,
            mac=identity.mac,
            address=subnet.base,
            network=network,
            mtu=self.mtu(subnet.version),
            learning=self.options.learning,
            gbp=self.options.gbp,
        )

    async def _mac(
        self, netlink: Netlink, held: Lease | None, subnet: Prefix | None, source: IPv4Address | IPv6Address
    ) -> bytes:
        """What the peers know of us already, where that is so, or one of this lease's own.

        A lease that we had under another address is in force for a day: with its MAC in our new lease the peers would
        have one MAC at two places. So a device that was made for another address, which is made anew, gets another one.
        """
        version = source.version
        network = next(it for it in self.config.networks if it.version == version)
        like = self.vtep(network, network, Identity(b"", source))
        there = await netlink.call(partial(vxlan_link.find, vtep=like))
        if held and subnet:
            said = held.backend_data if version == 4 else held.backend_v6_data
            if said is None:
                return derived_mac(self.options.vni, subnet)
            try:
                mac = said_mac(said, self.options.vni)
            except ConfigError as error:
                log.info("the lease there is says nothing of use about %s: %s", like.name, error)
            else:
                if there is None or not there.unfit:
                    return mac
        return random_mac()

    def _refuse_small_mtu(self) -> None:
        interface, mtu, asked = self.endpoint.interface, self.endpoint.mtu, self.options.mtu or 0
        if mtu < MIN_MTU_BYTES:
            raise ConfigError(f"interface {interface} has an MTU of {mtu} bytes, expected at least {MIN_MTU_BYTES}")
        if asked > mtu:
            log.warning("Backend.MTU %d does not fit %s: its MTU of %d is used", asked, interface, mtu)

    def _require_ipv6(self) -> None:
        if self.mtu(6) < IPV6_MIN_MTU_BYTES:
            raise ConfigError(
                f"IPv6 needs an MTU of {IPV6_MIN_MTU_BYTES} bytes on {self.options.device(6)}, which would have "
                f"{self.mtu(6)}: expected a Backend.MTU and an interface of at least "
                f"{IPV6_MIN_MTU_BYTES + OVERHEAD_BYTES[6]} bytes, or no IPv6 subnet for this node"
            )
        require_ipv6(self.options.device(6))
