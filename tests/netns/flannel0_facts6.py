"""As flannel0_facts, for IPv6."""

from dataclasses import replace
from ipaddress import IPv6Address

from flannel0_facts import OVERLAY
from inside import ip

from udpbackend.model import Prefix

NETWORK6 = Prefix.parse("fd00:5::/48")
OVERLAY6 = replace(OVERLAY, address6=IPv6Address("fd00:5:0:3::"), network6=NETWORK6)
ROUTE6 = "fd00:5::/48 dev flannel0 metric 1024 pref medium"


def routes6():
    """Of table main, without the kernel's own."""
    return [
        line.strip() for line in ip("-6", "route", "show", "table", "main").splitlines() if "proto kernel" not in line
    ]


def addresses6(device="flannel0"):
    [shown] = ip("-j", "-6", "addr", "show", device) or [{"addr_info": []}]
    return [(held["local"], held["prefixlen"]) for held in shown.get("addr_info", [])]
