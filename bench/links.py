"""The underlay links: one veth pair, made to behave in three ways by switching the offloads of both its ends.

Owns the names and meanings of the links and the only calls of ethtool. What was asked for is read back, and a link that
is not what it is called is an error, never a figure.
"""

import re
from dataclasses import dataclass

from bench.lab.netns import Namespace
from bench.lab.wait import LabError

FEATURES = {
    "tso": "tcp-segmentation-offload",
    "gso": "generic-segmentation-offload",
    "gro": "generic-receive-offload",
    "tx-udp-segmentation": "tx-udp-segmentation",
    "tx-udp_tnl-segmentation": "tx-udp_tnl-segmentation",
}
"""What is switched, by ethtool's word for it; and the word under which it is read back."""
SHOWN = ("tx-checksumming", "rx-checksumming", *FEATURES.values())

_LINE = re.compile(r"^\s*([\w-]+): (on|off)(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Profile:
    """One way for a link to behave."""

    name: str
    meaning: str
    """In plain words, for --help and the page."""
    segmentation: bool
    """Whether packets of up to 64 KB cross it whole."""
    gro: bool
    """Whether the receiving end joins packets again."""

    def wanted(self) -> dict[str, bool]:
        """What each feature of FEATURES has to be."""
        return {name: self.gro if name == "gro" else self.segmentation for name in FEATURES}


_WHOLE = "a veth pair as the kernel makes it: packets of up to 64 KB cross it whole"
_JOINED = "every packet crosses at the MTU's size and the receiver joins them, as on a card"
_ALONE = "every packet crosses at the MTU's size and arrives alone"
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("pass-through", _WHOLE, segmentation=True, gro=False),
        Profile("wire", _JOINED, segmentation=False, gro=True),
        Profile("wire-nogro", _ALONE, segmentation=False, gro=False),
    )
}
NAMES = tuple(PROFILES)


def parse_features(text: str) -> dict[str, bool]:
    """Reads `ethtool -k`."""
    return {name: value == "on" for name, value, _ in _LINE.findall(text)}


def switch(namespace: Namespace, device: str, profile: Profile) -> dict[str, bool]:
    """Makes one end behave so and returns the offloads as read back; LabError when the kernel did otherwise."""
    wanted = profile.wanted()
    words = [word for name, on in wanted.items() for word in (name, "on" if on else "off")]
    namespace.run("ethtool", "-K", device, *words)
    found = parse_features(namespace.run("ethtool", "-k", device))
    wrong = [name for name, on in wanted.items() if found.get(FEATURES[name]) is not on]
    if wrong:
        raise LabError(f"{device} in {namespace.name} is no {profile.name} link: {', '.join(wrong)} did not change")
    return {name: found[name] for name in SHOWN if name in found}
