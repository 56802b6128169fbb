"""A host for the tests of `doctor`, made up: no daemon, or one that reports what a test says."""

from observed import facts as daemon_facts

from udpbackend.doctor.facts import Facts
from udpbackend.host.netlink import Netlink
from udpbackend.observe.build import build
from udpbackend.settings import Settings


def doctor_facts(*, report=None, settings=None, **more):
    """What the checks start from; netlink is not open, so that nothing of this machine gets in."""

    async def ask():
        return report

    values = {"settings": settings or Settings(), "ask": ask, "netlink": Netlink(), "report": report, **more}
    return Facts(**values)


def report(**changes):
    """Of the daemon that observed.py makes up."""
    return build(daemon_facts(**changes))
