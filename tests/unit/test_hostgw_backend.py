"""What host-gw tells the peers, and what it refuses before anything is changed."""

from ipaddress import IPv4Address, IPv6Address

import pytest
import uvloop

from udpbackend.backends import hostgw
from udpbackend.backends.backend import Context
from udpbackend.errors import ConfigError
from udpbackend.model import Attributes, Endpoint, Lease, Prefix
from udpbackend.settings import Settings
from udpbackend.subnets.config import parse_config

OWN = IPv4Address("192.0.2.1")
OWN6 = IPv6Address("2001:db8::1")
IPV6 = ', "EnableIPv6": true, "IPv6Network": "fd00:5::/48"'
HELD = Lease(Prefix.parse("10.5.1.0/24"), int(OWN), backend_type="host-gw")


class Netlink:
    """A host with two addresses."""

    async def call(self, _work):
        return [Message(str(OWN)), Message(str(OWN6))]


class Message:
    def __init__(self, address):
        self.address = address

    def get_attr(self, name):
        return self.address if name == "IFA_LOCAL" else None


def prepare(more="", held=None, public_ip=OWN, public_ipv6=None):
    context = Context(
        config=parse_config(f'{{"Network": "10.5.0.0/16"{more}, "Backend": {{"Type": "host-gw"}}}}'),
        endpoint=Endpoint("eth0", 2, 9000, OWN, public_ip, public_ipv6),
        netlink=Netlink(),
        settings=Settings(),
        published=lambda _: None,
    )
    backend = hostgw.backend(context)
    assert (backend.mtu, backend.port) == (9000, None)
    return uvloop.run(backend.prepare(held))


def test_a_lease_has_no_data():
    assert prepare(public_ipv6=OWN6) == Attributes(OWN, None, "host-gw")


def test_with_ipv6_the_peers_are_told_our_ipv6_address():
    assert prepare(IPV6, public_ipv6=OWN6) == Attributes(OWN, OWN6, "host-gw")
    assert prepare(IPV6, HELD, public_ipv6=OWN6) == Attributes(OWN, None, "host-gw"), "this node has no part in it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"public_ip": IPv4Address("203.0.113.1")},
            r"which is not supported by host-gw backend: PublicIP is 203\.0\.113\.1, eth0 has 192\.0\.2\.1$",
        ),
        ({"more": IPV6}, r"interface eth0 has no IPv6 address to meet the peers at: .*--public-ipv6"),
        (
            {"more": IPV6, "public_ipv6": IPv6Address("2001:db8::9")},
            r"^--public-ipv6: expected an address of this host, got 2001:db8::9$",
        ),
    ],
)
def test_what_cannot_work_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        prepare(**arguments)
