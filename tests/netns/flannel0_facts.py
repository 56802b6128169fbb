"""What the tests of flannel0 want it to be, and what the kernel says that it is."""

from ipaddress import IPv4Address
from pathlib import Path

from inside import ip

from udpbackend.host.overlay_plan import Overlay
from udpbackend.model import Prefix

NETWORK = Prefix.parse("10.5.0.0/16")
OVERLAY = Overlay(IPv4Address("10.5.3.0"), NETWORK, 1472)
ROUTE = "10.5.0.0/16 dev flannel0"


def routes():
    return [line.strip() for line in ip("route", "show", "table", "main").splitlines()]


def addresses(device="flannel0"):
    [shown] = ip("-j", "-4", "addr", "show", device) or [{"addr_info": []}]
    return [(held["local"], held["prefixlen"], held["scope"]) for held in shown["addr_info"]]


def sysctl(name):
    return Path("/proc/sys/net", name).read_text(encoding="ascii").strip()


def set_sysctl(name, value):
    Path("/proc/sys/net", name).write_text(value, encoding="ascii")
