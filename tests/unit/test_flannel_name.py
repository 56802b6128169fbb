"""Which TUN a daemon takes, where other networks have theirs."""

from ipaddress import ip_address

import pytest

from udpbackend.host.flannel_name import choose
from udpbackend.host.leftovers_devices import Device
from udpbackend.host.mark import ALIAS
from udpbackend.model import Prefix

NETWORKS = [Prefix.parse("10.5.0.0/16"), Prefix.parse("fd00:5::/48")]


def tun(name, address="", *, queues=0, alias=ALIAS):
    return Device(name, 7, "tun", alias, queues, addresses=(ip_address(address),) if address else ())


@pytest.mark.parametrize(
    ("devices", "name"),
    [
        ([], "flannel0"),
        ([tun("flannel1", "10.6.1.0", queues=1)], "flannel0"),
        ([tun("flannel0", "10.6.1.0", queues=1)], "flannel1"),
        ([tun("flannel0", "10.6.1.0", queues=1, alias="")], "flannel1"),
        ([tun("flannel0", "10.6.1.0", queues=1), tun("flannel1", "10.7.1.0", queues=2)], "flannel2"),
        ([tun("flannel0", "10.6.1.0")], "flannel0"),
        ([tun("flannel0", "10.6.1.0"), tun("flannel1", "10.5.1.0")], "flannel1"),
        ([tun("flannel0", "10.6.1.0"), tun("flannel1", "fd00:5:0:1::")], "flannel1"),
        ([tun("flannel0", "10.5.1.0", queues=1)], "flannel0"),
        ([tun("flannel0", "10.5.1.0", queues=1, alias="")], "flannel0"),
        ([tun("flannel0", alias="")], "flannel0"),
        ([Device("flannel0", 7, "bridge")], "flannel0"),
        ([Device("flannel.1", 7, "vxlan", ALIAS)], "flannel0"),
    ],
)
def test_the_name(devices, name):
    """One that is refused in the end (another daemon's of this network, somebody's own) is chosen, to be named."""
    assert choose(devices, NETWORKS) == name


@pytest.mark.parametrize(
    ("devices", "claimed", "name"),
    [
        ([], ["flannel0"], "flannel1"),
        ([], ["flannel0", "flannel1", "flannel.1"], "flannel2"),
        ([tun("flannel0", "10.6.1.0")], ["flannel0"], "flannel1"),
        ([tun("flannel0", "10.5.1.0")], ["flannel0"], "flannel0"),
    ],
)
def test_what_another_daemon_has_yet_to_make_is_left_to_it(devices, claimed, name):
    """Two that started at once both chose flannel0, and one ended; ours of this network is chosen, to be refused."""
    assert choose(devices, NETWORKS, claimed) == name
